"""Whether anybody is at home: after connections failed for several requests in a row, one probe at a time until one is answered. Pure."""

from __future__ import annotations

OPENS_AFTER = 5
"""Different requests without a success between them; one poisoned request never opens it."""
FIRST_WAIT_S = 1.0
MAX_WAIT_S = 60.0


class Breaker:
    """Closed until connections fail for `OPENS_AFTER` different requests in a row; then open, with waits of 1 s to 60 s between single probes."""

    def __init__(self) -> None:
        self._failed: set[str] = set()
        self._wait_s = 0.0
        self._opened_ns = 0
        self._next_ns = 0
        self._probing = False

    @property
    def is_open(self) -> bool:
        return bool(self._wait_s)

    @property
    def probing(self) -> bool:
        """A probe is on its way; nobody else may go."""
        return self._probing

    @property
    def next_ns(self) -> int:
        """When the next probe may go, while open."""
        return self._next_ns

    def dark_s(self, now_ns: int) -> float:
        """For how long nobody has answered; 0 while closed."""
        return (now_ns - self._opened_ns) / 1e9 if self._wait_s else 0.0

    def sent(self) -> None:
        """A request goes out; while open it is the probe."""
        self._probing = self.is_open

    def answered(self) -> None:
        """Somebody answered, whatever it was."""
        self._wait_s = 0.0
        self._probing = False
        self._failed.clear()

    def failed(self, key: str, now_ns: int, *, probe: bool) -> None:
        """The connection of the request `key` failed; `probe` if it went out as one."""
        if self.is_open:
            if probe:
                self._probing = False
                self._wait_s = min(MAX_WAIT_S, 2 * self._wait_s)
                self._next_ns = now_ns + int(self._wait_s * 1e9)
            return
        self._failed.add(key)
        if len(self._failed) >= OPENS_AFTER:
            self._wait_s = FIRST_WAIT_S
            self._opened_ns = now_ns
            self._next_ns = now_ns + int(self._wait_s * 1e9)

    def gave_up(self) -> None:
        """The probe was cancelled: the next one may go."""
        self._probing = False
