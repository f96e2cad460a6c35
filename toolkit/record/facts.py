"""What the sampler said of single tokens, as JSON: compact, bounded, found by request and place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

__all__ = ["MAX_FACT_BYTES", "Facts"]

MAX_FACT_BYTES = 64_000_000


class Facts:
    """The facts of tokens, by request and position; the oldest go when they take too much.

    >>> facts = Facts()
    >>> facts.put("req-0", 7, {"kept": 3})
    >>> facts.get("req-0", 7), facts.get("req-0", 8)
    ({'kept': 3}, None)
    """

    def __init__(self, max_bytes: int = MAX_FACT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_dropped = 0
        self._texts: dict[tuple[str, int], str] = {}  # oldest first

    def put(self, request_id: str, position: int, facts: dict[str, Any]) -> None:
        """Keep what is known of one token; what JSON does not know is kept as its repr."""
        self.put_text(request_id, position, json.dumps(facts, default=repr))

    def put_text(self, request_id: str, position: int, text: str) -> None:
        """Keep it as JSON."""
        key = (request_id, position)
        self.num_bytes += len(text) - len(self._texts.pop(key, ""))
        self._texts[key] = text
        while self.num_bytes > self.max_bytes:
            oldest = next(iter(self._texts))
            self.num_bytes -= len(self._texts.pop(oldest))
            self.num_dropped += 1

    def keep(self, tokens: Iterable[tuple[str, int]]) -> None:
        """Forget all but those of some tokens, given as (request id, position)."""
        known = set(tokens)
        self._texts = {key: text for key, text in self._texts.items() if key in known}
        self.num_bytes = sum(map(len, self._texts.values()))

    def get(self, request_id: str, position: int) -> dict[str, Any] | None:
        """Return what was kept of a token, or None."""
        text = self._texts.get((request_id, position))
        return None if text is None else dict(json.loads(text))

    def items(self) -> list[tuple[str, int, str]]:
        """Return (request id, position, JSON) of all, oldest first."""
        return [(*key, text) for key, text in list(self._texts.items())]

    def copy(self) -> Facts:
        """Return facts that later ones do not change."""
        twin = Facts(self.max_bytes)
        twin._texts, twin.num_bytes = dict(self._texts), self.num_bytes
        return twin

    def __len__(self) -> int:
        return len(self._texts)
