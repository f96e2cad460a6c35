"""Choose which cached block loses its content: other rules than the pool's own.

The pool itself evicts the block that was given back longest ago (LRU), which needs no strategy.
Each rule here ranks a block when it is given back; blocks that are held cannot be chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

__all__ = ["Eviction", "FarthestUse", "FirstIn", "LeastUsed"]


class Eviction(Protocol):
    """Told of every block that can be evicted; asked which one is."""

    def offer(self, block_id: int, name: bytes) -> None:
        """A block with this content was given back by its last holder: it can be chosen now."""

    def keep(self, block_id: int) -> None:
        """An offered block is held again, or was emptied before its turn."""

    def choose(self) -> int:
        """Return the block to evict, which is offered no longer."""
        ...


class _Ranked(ABC):
    """Evicts the offered block of the smallest rank, which it has from when it was offered.

    A heap in which entries of blocks that are held again stay until they come up.
    """

    def __init__(self) -> None:
        self._offered: dict[int, tuple[int, int, int]] = {}  # rank, number of the offer, block
        self._heap: list[tuple[int, int, int]] = []
        self._num_offers = 0

    def offer(self, block_id: int, name: bytes) -> None:
        """Rank a block."""
        self._num_offers += 1
        entry = (self._rank(block_id, name), self._num_offers, block_id)
        self._offered[block_id] = entry
        if len(self._heap) > 4 * len(self._offered) + 64:
            self._heap = list(self._offered.values())
            heapify(self._heap)
        else:
            heappush(self._heap, entry)

    def keep(self, block_id: int) -> None:
        """Let nobody choose it."""
        del self._offered[block_id]

    def choose(self) -> int:
        """Return the block of the smallest rank; of equals, the one that was offered first."""
        while True:
            entry = heappop(self._heap)
            block_id = entry[2]
            if self._offered.get(block_id) == entry:
                del self._offered[block_id]
                return block_id

    @abstractmethod
    def _rank(self, block_id: int, name: bytes) -> int:
        """Return the rank of a block that is offered now."""


class _Remembering(_Ranked):
    """Ranks by a number of the content that lasts as long as the content is in its block."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[int, tuple[bytes, int]] = {}  # by block: content, and its number

    def choose(self) -> int:
        """Return the block of the smallest rank, and forget what was in it."""
        block_id = super().choose()
        del self._numbers[block_id]
        return block_id

    def _rank(self, block_id: int, name: bytes) -> int:
        known, number = self._numbers.get(block_id, (name, 0))
        number = self._next(number if known == name else 0)
        self._numbers[block_id] = name, number
        return number

    @abstractmethod
    def _next(self, number: int) -> int:
        """Return the number that follows, of content that is offered; 0 stands for new content."""


class FirstIn(_Remembering):
    """FIFO: evict the content that came first, however often it was used since.

    >>> rule = FirstIn()
    >>> for block_id, name in (0, b"a"), (1, b"b"):
    ...     rule.offer(block_id, name)
    >>> rule.keep(0)
    >>> rule.offer(0, b"a")
    >>> rule.choose()
    0
    """

    def _next(self, number: int) -> int:
        return number or self._num_offers


class LeastUsed(_Remembering):
    """LFU: evict the content with the fewest uses since it came, of equals the one offered first.

    >>> rule = LeastUsed()
    >>> for block_id, name in (0, b"a"), (1, b"b"):
    ...     rule.offer(block_id, name)
    >>> rule.keep(0)
    >>> rule.offer(0, b"a")
    >>> rule.choose()
    1
    """

    def _next(self, number: int) -> int:
        return number + 1


class FarthestUse(_Ranked):
    """Belady's rule: evict the content whose next use is farthest, which takes knowing the future.

    The fewest misses that any rule can have; a bound for the others, and none that an engine could
    follow (Belady, "A study of replacement algorithms for a virtual-storage computer", 1966).

    Args:
        uses: Moments at which each content will be looked up, in rising order.

    >>> rule = FarthestUse({b"a": [0, 3], b"b": [1, 2]})
    >>> rule.now = 2
    >>> for block_id, name in (0, b"a"), (1, b"b"):
    ...     rule.offer(block_id, name)
    >>> rule.choose()  # nobody looks "b" up after moment 2
    1
    """

    def __init__(self, uses: Mapping[bytes, Sequence[int]]) -> None:
        super().__init__()
        self.now = 0  # the last moment that has passed: the caller moves it
        self._uses = uses
        self._never = 1 + max((moments[-1] for moments in uses.values() if moments), default=0)

    def _rank(self, block_id: int, name: bytes) -> int:
        moments = self._uses.get(name, ())
        index = bisect_left(moments, self.now + 1)
        return -moments[index] if index < len(moments) else -self._never
