"""How much work a search may do, counted: unlike a time, it is the same on any machine."""

from __future__ import annotations

import math
import time

__all__ = ["Effort"]


class Effort:
    """An allowance of calls into a grammar's matcher, each of some 10 microseconds.

    Args:
        num_calls: How many calls there may be.
        cpu_s: Of the calling thread from now on, in case a grammar makes its calls slow; what does
            not end sooner is not the machine's fault.

    >>> effort = Effort(2)
    >>> [effort.spend(), effort.spend(), effort.spend(), effort.is_spent]
    [True, True, False, True]
    """

    def __init__(self, num_calls: int, *, cpu_s: float = math.inf) -> None:
        self.left = num_calls
        self.is_spent = False
        self._until_s = math.inf if cpu_s == math.inf else time.thread_time() + cpu_s

    def spend(self) -> bool:
        """Take one call from the allowance; return whether it was there to be taken."""
        if self.left <= 0 or (self._until_s < math.inf and time.thread_time() > self._until_s):
            self.is_spent = True
            return False
        self.left -= 1
        return True

    def part(self, num_calls: int) -> Effort:
        """Return an allowance of at most so many calls, which is taken from this one at once."""
        own = Effort(min(num_calls, self.left))
        own._until_s = self._until_s
        self.left -= own.left
        return own

    def give_back(self, part: Effort) -> None:
        """Take back what a part did not need."""
        self.left += part.left
