"""Feed: who is due next, of a load that streams and whose requests may follow one another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from toolkit.due import DueLine
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
        self._line = DueLine[Arrival]()
        self._num_open = 0  # in the line, and following nobody
        self._unended: set[int] = set()  # of all that were read
        self._read()

    @property
    def next_due_s(self) -> float:
        """When the next one comes; infinite if that depends on others, or nobody does."""
        return self._line.next_s

    @property
    def num_following(self) -> int:
        """How many wait for the end of another."""
        return self._line.num_following

    def take(self, now_s: float) -> list[Due]:
        """Return those that are due, each once."""
        taken = []
        while (found := self._line.take(now_s)) is not None:
            due = Due(*found)
            taken.append(due)
            if due.arrival.after < 0:
                self._num_open -= 1
                if self._num_open < _READ_AHEAD and not self._is_read:
                    self._read()
        return taken

    def ended(self, arrival_id: int, now_s: float) -> None:
        """Note that one has ended, well or not: who follows it has a time now."""
        self._line.ended(arrival_id, now_s)
        self._unended.discard(arrival_id)

    def _read(self) -> None:
        """Read on until enough are known that follow nobody."""
        while self._num_open < _READ_AHEAD:
            arrival = next(self._stream, None)
            if arrival is None:
                self._is_read = True
                return
            number, due_s, after = arrival.arrival_id, arrival.due_s, arrival.after
            if after < 0:
                self._require_order(arrival)
                self._num_open += 1
            elif after not in self._unended and not self._line.has_ended(after):
                raise InvalidConfig(
                    f"arrival {number} follows {after}, which does not stand before it in the "
                    "load, so it would never come"
                )
            self._line.add(number, arrival, due_s=due_s, after=after)
            self._unended.add(number)

    def _require_order(self, arrival: Arrival) -> None:
        if not self._last_due_s <= arrival.due_s < math.inf:
            raise InvalidConfig(
                f"arrival {arrival.arrival_id} is due at {arrival.due_s} s, the one before it at "
                f"{self._last_due_s} s: sort the load by due_s"
            )
        self._last_due_s = arrival.due_s
