"""Find stop strings in growing text, across token edges, and know what must be held back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["StopMatch", "StopStrings"]


class StopMatch(NamedTuple):
    """Where a stop string stands in the text."""

    stop: str
    start: int
    end: int


class StopStrings:
    """The stop strings of one request.

    >>> stops = StopStrings(["END", "."])
    >>> stops.find("all ENDs well.", 0)
    StopMatch(stop='END', start=4, end=7)
    >>> stops.num_held_back("all EN")
    2
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)

    def __bool__(self) -> bool:
        return bool(self._stops)

    def find(self, text: str, num_searched: int) -> StopMatch | None:
        """Return the match that starts first, the longer one on a tie.

        ``num_searched`` characters were searched before, so a match must end after them.
        """
        best: StopMatch | None = None
        for stop in self._stops:
            start = text.find(stop, max(0, num_searched - len(stop) + 1))
            if start < 0:
                continue
            match = StopMatch(stop, start, start + len(stop))
            if best is None or (match.start, -match.end) < (best.start, -best.end):
                best = match
        return best

    def num_held_back(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that could begin a stop string."""
        longest = 0
        for stop in self._stops:
            start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
            while 0 <= start < len(text) - longest:
                if stop.startswith(text[start:]):
                    longest = len(text) - start
                    break
                start = text.find(stop[0], start + 1)
        return longest
