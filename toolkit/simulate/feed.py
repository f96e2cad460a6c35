"""Feed: who is due next, of a load that streams and whose requests may follow one another."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import NamedTuple

from toolkit.errors import InvalidConfig
from toolkit.simulate.arrivals import Arrival

__all__ = ["Due", "Feed"]

# How many are read before they are due, to find those among them that follow an earlier one.
_READ_AHEAD = 10_000


class Due(NamedTuple):
    """An arrival and when it comes, in seconds from the start of the load."""

    due_s: float
    arrival_id: int
    arrival: Arrival


class Feed:
    """The arrivals of a load in the order in which they are due.

    Those that follow nobody must come in the order of ``due_s``. One that follows another is due
    once that one has ended and ``due_s`` has passed; it may stand anywhere behind it, but is seen
    late if more than 10,000 that follow nobody and are not yet due stand between them. A load out
    of order, or one who follows nobody that stands before, raises InvalidConfig when it is read.

    >>> feed = Feed([Arrival(0, 0.0, 8, 2), Arrival(1, 1.5, 8, 2, after=0)])
    >>> [due.arrival_id for due in feed.take(0.0)], feed.next_due_s
    ([0], inf)
    >>> feed.ended(0, 4.0)
    >>> feed.next_due_s
    5.5
    """

    def __init__(self, arrivals: Iterable[Arrival]) -> None:
        self._stream = iter(arrivals)
        self._is_read = False
        self._last_due_s = -math.inf
        self._heap: list[Due] = []
        self._num_open = 0  # in the heap, and following nobody
        self._unended: set[int] = set()  # of all that were read
        self._followers: dict[int, list[Arrival]] = {}
        self._ended_s: dict[int, float] = {}
        self._read()

    @property
    def next_due_s(self) -> float:
        """When the next one comes; infinite if that depends on others, or nobody does."""
        return self._heap[0][0] if self._heap else math.inf

    @property
    def num_following(self) -> int:
        """How many wait for the end of another."""
        return sum(map(len, self._followers.values()))

    def take(self, now_s: float) -> list[Due]:
        """Return those that are due, each once."""
        taken = []
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            due = heapq.heappop(heap)
            taken.append(due)
            if due.arrival.after < 0:
                self._num_open -= 1
                if self._num_open < _READ_AHEAD and not self._is_read:
                    self._read()
        return taken

    def ended(self, arrival_id: int, now_s: float) -> None:
        """Note that one has ended, well or not: who follows it has a time now."""
        self._ended_s[arrival_id] = now_s
        self._unended.discard(arrival_id)
        for follower in self._followers.pop(arrival_id, ()):
            self._follow(follower, now_s)

    def _read(self) -> None:
        """Read on until enough are known that follow nobody."""
        while self._num_open < _READ_AHEAD:
            arrival = next(self._stream, None)
            if arrival is None:
                self._is_read = True
                return
            if arrival.after < 0:
                self._require_order(arrival)
                self._num_open += 1
                heapq.heappush(self._heap, Due(arrival.due_s, arrival.arrival_id, arrival))
            elif arrival.after in self._ended_s:
                self._follow(arrival, self._ended_s[arrival.after])
            elif arrival.after in self._unended:
                self._followers.setdefault(arrival.after, []).append(arrival)
            else:
                raise InvalidConfig(
                    f"arrival {arrival.arrival_id} follows {arrival.after}, which does not stand "
                    "before it in the load, so it would never come"
                )
            self._unended.add(arrival.arrival_id)

    def _follow(self, arrival: Arrival, ended_s: float) -> None:
        due_s = ended_s + arrival.due_s
        heapq.heappush(self._heap, Due(due_s, arrival.arrival_id, arrival))

    def _require_order(self, arrival: Arrival) -> None:
        if not self._last_due_s <= arrival.due_s < math.inf:
            raise InvalidConfig(
                f"arrival {arrival.arrival_id} is due at {arrival.due_s} s, the one before it at "
                f"{self._last_due_s} s: sort the load by due_s"
            )
        self._last_due_s = arrival.due_s
