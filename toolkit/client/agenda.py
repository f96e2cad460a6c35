"""Which requests of a load are due: those with a time of their own, and those that follow others.

Open loop: what is due is due, however many are under way. A request that follows another (a client
that waits for its answer, a turn of a chat) is due so many seconds after the end of that one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from toolkit.due import DueLine
from toolkit.errors import InvalidConfig

__all__ = ["Agenda", "Due", "check_max_in_flight"]


class Due(NamedTuple):
    """A request that is to be sent.

    ``free_s`` is when nothing held it back any more: ``scheduled_s``, or later where a limit on the
    number in flight did.
    """

    arrival_id: int
    scheduled_s: float
    free_s: float


class Agenda:
    """Hands out requests when they are due; times count from the start of the load.

    >>> agenda = Agenda()
    >>> agenda.add(0, due_s=1.0)
    >>> agenda.add(1, due_s=0.5, after=0)
    >>> agenda.next_s, agenda.take(0.9), agenda.take(1.0)
    (1.0, None, Due(arrival_id=0, scheduled_s=1.0, free_s=1.0))
    >>> agenda.ended(0, 3.0); agenda.next_s
    3.5

    Args:
        max_in_flight: How many may be under way at once; None for no limit. Those that are due and
            held back keep the time at which they were scheduled.

    Raises:
        InvalidConfig: a limit below 1.
    """

    def __init__(self, *, max_in_flight: int | None = None) -> None:
        check_max_in_flight(max_in_flight)
        self.num_in_flight = 0
        self.num_waiting = 0  # added and not handed out yet, followers included
        self._max_in_flight = max_in_flight
        self._line = DueLine[None]()
        self._roomy_since_s = 0.0

    def add(self, arrival_id: int, *, due_s: float, after: int = -1) -> None:
        """Take in a request; one that follows another (``after``) may come before or after its end.

        Args:
            arrival_id: Its place in the load.
            due_s: From the start of the load, or from the end of the request it follows.
            after: That request; -1 for none.
        """
        self.num_waiting += 1
        self._line.add(arrival_id, None, due_s=due_s, after=after)

    @property
    def next_s(self) -> float | None:
        """When the next one is to be sent; None while that waits for the end of another."""
        next_s = self._line.next_s
        return next_s if next_s < math.inf and self._has_room else None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left that was added: nothing waits, nothing is under way."""
        return not self.num_waiting and not self.num_in_flight

    def take(self, now_s: float) -> Due | None:
        """Return one that is to be sent now, the earliest first; None if there is none."""
        taken = self._line.take(now_s) if self._has_room else None
        if taken is None:
            return None
        scheduled_s, arrival_id, _ = taken
        self.num_waiting -= 1
        self.num_in_flight += 1
        return Due(arrival_id, scheduled_s, max(scheduled_s, self._roomy_since_s))

    def ended(self, arrival_id: int, at_s: float) -> None:
        """Note that a request has ended, well or not; those that follow it become due."""
        if not self._has_room:
            self._roomy_since_s = at_s
        self.num_in_flight -= 1
        self._line.ended(arrival_id, at_s)

    @property
    def _has_room(self) -> bool:
        return self._max_in_flight is None or self.num_in_flight < self._max_in_flight


def check_max_in_flight(limit: int | None) -> None:
    """Refuse a limit with which nothing would ever be sent, with InvalidConfig."""
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1):
        return
    raise InvalidConfig(f"max_in_flight={limit!r} must be a number from 1, or None for no limit")
