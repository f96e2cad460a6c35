"""Contiguous regions of KV slots from a buddy allocator: what Orca is taken to do.

Knuth, The Art of Computer Programming 1, section 2.5: every region has a power of two of slots and
starts at a multiple of its size. Taking one halves the smallest free region that is large enough,
as often as it can; giving one back joins it to its other half, its buddy, where that is free too.
What a request does not need of its power of two is lost to everybody while it runs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from toolkit.cache.blocks import BlockPool, OutOfBlocks, PoolState
from toolkit.clock import Clock
from toolkit.errors import InvariantViolation

__all__ = ["Buddy", "BuddyPool", "region_size"]


def region_size(num_slots: int) -> int:
    """Return the smallest power of two that is at least ``num_slots``.

    >>> region_size(25), region_size(32)
    (32, 32)
    """
    return 1 << (num_slots - 1).bit_length()


class Buddy:
    """Free regions of a line of slots, by size.

    The line need not be a power of two long: it begins as one region per binary digit of its
    length, the largest first, none of which is another's buddy.

    >>> buddy = Buddy(15_728)  # OPT-13B on an A100-40GB
    >>> len([buddy.take(2048) for _ in range(7)]), buddy.can_take(2048)
    (7, False)
    """

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._free: dict[int, set[int]] = {}  # starts of free regions, by size
        start = 0
        for bit in reversed(range(num_slots.bit_length())):
            if num_slots >> bit & 1:
                self._free[1 << bit] = {start}
                start += 1 << bit

    @property
    def num_free(self) -> int:
        """Slots in free regions."""
        return sum(size * len(starts) for size, starts in self._free.items())

    @property
    def largest(self) -> int:
        """Size of the largest free region; 0 if there is none."""
        return max((size for size, starts in self._free.items() if starts), default=0)

    def can_take(self, num_slots: int) -> bool:
        """Whether some free region is large enough."""
        return region_size(num_slots) <= self.largest

    def take(self, num_slots: int) -> range:
        """Take the lowest of the smallest free regions that are large enough.

        Raises:
            OutOfBlocks: no free region is.
        """
        size = region_size(num_slots)
        found = min((s for s, starts in self._free.items() if starts and s >= size), default=None)
        if found is None:
            raise OutOfBlocks(f"no free region of {size} slots; the largest has {self.largest}")
        start = min(self._free[found])
        self._free[found].remove(start)
        while found > size:
            found //= 2
            self._free.setdefault(found, set()).add(start + found)
        return range(start, start + size)

    def give_back(self, region: range) -> None:
        """Free a region that was taken, and join it with its buddies as far as they are free."""
        start, size = region.start, len(region)
        while start ^ size in self._free.get(size, ()):
            self._free[size].remove(start ^ size)
            start &= ~size
            size *= 2
        self._free.setdefault(size, set()).add(start)

    @property
    def free_regions(self) -> list[range]:
        """Every free region, in order."""
        starts = sorted((start, size) for size, each in self._free.items() for start in each)
        return [range(start, start + size) for start, size in starts]


class BuddyPool(BlockPool):
    """A pool whose blocks are single slots, handed out in regions.

    Nothing in it is ever named, so nothing is cached or found: a slot is held or empty.

    >>> pool = BuddyPool(64)
    >>> region = pool.take(25, "a")
    >>> len(region), pool.num_free
    (32, 32)
    """

    def __init__(self, num_slots: int, *, clock: Clock | None = None) -> None:
        super().__init__(num_slots, clock=clock)
        self._buddy = Buddy(num_slots)
        self._empty.sort()

    def can_take(self, count: int) -> bool:
        """Whether a region of ``count`` slots is free."""
        return self._buddy.can_take(count)

    def take(self, count: int, request_id: str) -> list[int]:
        """Take one region of at least ``count`` slots, all of it.

        Raises:
            OutOfBlocks: no free region is large enough; nothing was taken.
        """
        region = self._buddy.take(count)
        at = bisect_left(self._empty, region.start)
        del self._empty[at : at + len(region)]
        self._ref_counts[region.start : region.stop] = [1] * len(region)
        if self.observer is not None:
            for slot in region:
                self.observer.block_taken(slot, request_id)
        return list(region)

    def release(self, block_ids: Iterable[int], request_id: str) -> None:
        """Give back one whole region, in whatever order."""
        slots = sorted(block_ids)
        if not slots:
            return
        region = range(slots[0], slots[-1] + 1)
        held = self._ref_counts[region.start : region.stop]
        if len(region) != len(slots) or held != [1] * len(slots):
            raise InvariantViolation(f"{request_id} gives back what is not its region: {region}")
        self._ref_counts[region.start : region.stop] = [0] * len(region)
        at = bisect_left(self._empty, region.start)
        self._empty[at:at] = region
        self._buddy.give_back(region)
        if self.observer is not None:
            for slot in reversed(region):
                self.observer.block_freed(slot, request_id)

    def set_state(self, state: PoolState) -> None:
        """Go on as another pool would, of the same size: all of it is free."""
        super().set_state(state)
        self._buddy = Buddy(self.num_blocks)
        self._empty.sort()

    def check(self) -> None:
        """Raise InvariantViolation unless slots and free regions agree."""
        super().check()
        if [slot for region in self._buddy.free_regions for slot in region] != self._empty:
            raise InvariantViolation("the free regions are not the empty slots")
