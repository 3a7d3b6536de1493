"""The context cache: prefixes of at least 1,024 tokens that were seen in the last five minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import json

from evalrunner.cost.tokens import count_messages
from evalrunner.simulator.calls import Call
from evalrunner.simulator.chance import draw

SMALLEST, TTL_S, MARKERS, MOST = 1_024, 300.0, 4, 10_000


class ContextCache:
    """Explicit where a content part carries `cache_control`; implicit, for whole leading messages, where it is switched on."""

    def __init__(self, *, implicit: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._implicit, self._now = implicit, now
        self._seen: dict[int, float] = {}

    def account(self, call: Call) -> None:
        """Set the call's cached and written tokens, and remember its prefixes."""
        ends = [number for number, message in enumerate(call.messages, start=1) if _is_marked(message)]
        call.explicit_cache = bool(ends)
        if not ends and not self._implicit:
            return
        now, longest = self._now(), 0
        if len(self._seen) > MOST:
            self._seen = {key: until for key, until in self._seen.items() if until > now}
        for end in ends[-MARKERS:] or range(1, len(call.messages) + 1):
            prefix = call.messages[:end]
            tokens = min(count_messages(prefix, tools=call.params.get("tools")) - 3, call.prompt_tokens)
            if tokens < SMALLEST:
                continue
            key = draw(call.model, json.encode([prefix, call.params.get("tools")]).decode())
            if self._seen.get(key, 0.0) > now:
                call.cached_tokens = tokens
            longest = tokens
            self._seen[key] = now + TTL_S
        call.written_tokens = longest - call.cached_tokens if call.explicit_cache else 0


def _is_marked(message: dict[str, object]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(isinstance(part, dict) and "cache_control" in part for part in content)
