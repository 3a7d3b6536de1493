"""How a run is ended early, and what is known of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct, field


class End(Struct, frozen=True, kw_only=True):
    """How a run ended. All None and empty: every lane came to its end.

    `reason`: what `Stop.request` was told, or `budget`; then `shortfall` says what did not fit · `error`: what the store, the plan or our own code raised ·
    `stopped`: account, or account/model, and what its provider said · `nobody_left`: every lane was stopped so.
    """

    reason: str | None = None
    shortfall: str | None = None
    error: Exception | None = None
    stopped: Mapping[str, Exception] = field(default_factory=dict)
    nobody_left: bool = False

    @property
    def why(self) -> str | None:
        """Why the run did not come to its end by itself, for the manifest and the terminal."""
        parts = [self.shortfall or self.reason, *(f"{name} refused: {error}" for name, error in self.stopped.items())]
        return "; ".join(part for part in parts if part) or None


class Stop:
    """Ends a run early, from a signal handler or a task of the same loop."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.aborted = False
        self.bound = False
        self._on_request: Callable[[], None] = _nothing
        self._on_abort: Callable[[], None] = _nothing

    def request(self, reason: str) -> None:
        """Send nothing more, wait for what is in flight. The first reason stands."""
        if self.reason is None:
            self.reason = reason
            self._on_request()

    def abort(self) -> None:
        """Do not wait for what is in flight either; it gets no row, and an answer that is being scored one whose scores are still to come."""
        self.aborted = True
        self.request("aborted")
        self._on_abort()

    def bind(self, on_request: Callable[[], None], on_abort: Callable[[], None]) -> None:
        """Called by the run that this stops, when it begins to send."""
        self._on_request, self._on_abort, self.bound = on_request, on_abort, True


def _nothing() -> None:
    return None
