"""Who is due next of a load: those with a time of their own, and those that follow another."""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

from toolkit.errors import InvalidConfig

__all__ = ["DueLine"]

T = TypeVar("T")


class DueLine(Generic[T]):
    """Hands out what was added, the earliest first; times count from the start of a load.

    What follows another is due so many seconds after the end of that one, as a client's next
    request is that waits for its answer and thinks.

    >>> line = DueLine[str]()
    >>> line.add(0, "question", due_s=1.0)
    >>> line.add(1, "next question", due_s=0.5, after=0)
    >>> line.take(0.5), line.take(1.0), line.next_s
    (None, (1.0, 0, 'question'), inf)
    >>> line.ended(0, 3.0)
    >>> line.next_s
    3.5
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []  # ids differ, so items never compare
        self._followers: dict[int, list[tuple[float, int, T]]] = {}  # of those that have not ended
        self._ended_s: dict[int, float] = {}

    @property
    def next_s(self) -> float:
        """When the next one is due; infinite while all wait for the end of others."""
        return self._heap[0][0] if self._heap else math.inf

    @property
    def num_following(self) -> int:
        """How many wait for the end of another."""
        return sum(map(len, self._followers.values()))

    def add(self, arrival_id: int, item: T, *, due_s: float, after: int = -1) -> None:
        """Take one in; one that follows another (``after``) may come before or after its end.

        Args:
            arrival_id: Its place in the load; of equals the smallest is due first.
            item: What is handed out with it.
            due_s: From the start of the load, or from the end of the one it follows.
            after: That one; -1 for none.

        Raises:
            InvalidConfig: it would never be due, or at no time that can be compared.
        """
        if not math.isfinite(due_s):
            raise InvalidConfig(f"request {arrival_id}: due_s={due_s} is no time; give seconds")
        if after == arrival_id:
            raise InvalidConfig(f"request {arrival_id} follows itself, so it would never be sent")
        if after < 0:
            heapq.heappush(self._heap, (due_s, arrival_id, item))
        elif after in self._ended_s:
            heapq.heappush(self._heap, (self._ended_s[after] + due_s, arrival_id, item))
        else:
            self._followers.setdefault(after, []).append((due_s, arrival_id, item))

    def take(self, now_s: float) -> tuple[float, int, T] | None:
        """Take the next one if it is due: since when, its id, and the item; else return None."""
        if not self._heap or self._heap[0][0] > now_s:
            return None
        return heapq.heappop(self._heap)

    def ended(self, arrival_id: int, at_s: float) -> None:
        """Note that one has ended, well or not: who follows it has a time now."""
        self._ended_s[arrival_id] = at_s
        for due_s, follower, item in self._followers.pop(arrival_id, ()):
            heapq.heappush(self._heap, (at_s + due_s, follower, item))

    def has_ended(self, arrival_id: int) -> bool:
        """Say whether this one has ended."""
        return arrival_id in self._ended_s
