"""Own every block of KV memory: take, share, name, evict, give back; knows ids, never tensors.

A block is in exactly one of three states, told apart by its reference count and its name:

    held     count > 0                  some block tables point at it
    cached   count = 0 and named        nobody holds it, but a later prompt may reuse its content
    empty    count = 0 and unnamed      nothing worth keeping

Taking a block prefers empty ones, then evicts the cached block that was given back longest ago, or
the one that an `Eviction` strategy chooses.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from toolkit.cache.blocks.eviction import Eviction
from toolkit.clock import Clock
from toolkit.errors import InvariantViolation, ToolkitError

__all__ = ["BlockObserver", "BlockPool", "OutOfBlocks", "PoolState"]


class OutOfBlocks(ToolkitError):
    """More blocks were asked for than are free; the scheduler asks first, so this is a bug."""


class PoolState(NamedTuple):
    """A pool of which nothing is held."""

    names: tuple[tuple[int, bytes], ...]  # of cached blocks
    empty: tuple[int, ...]  # the last one is taken first
    cached: tuple[tuple[int, float], ...]  # block and time of its last use, oldest first
    num_evicted: int


class BlockObserver(Protocol):
    """Told of every change to a block; the engine turns the calls into events."""

    @property
    def is_listening(self) -> bool:
        """Whether it wants to be told: asked before a call about many blocks, not at each."""
        ...

    def block_taken(self, block_id: int, request_id: str) -> None:
        """A block was taken empty, or after an eviction."""

    def block_shared(self, block_id: int, request_id: str) -> None:
        """One more table points at a block that has content."""

    def block_copied(self, source_id: int, target_id: int, request_id: str) -> None:
        """A shared block was copied because its holder is about to write to it."""

    def block_cached(self, block_id: int) -> None:
        """A full block got its name: later prompts can find it."""

    def block_evicted(self, block_id: int, age_s: float, cause: str) -> None:
        """A cached block lost its content ``age_s`` seconds after its last use."""

    def block_freed(self, block_id: int, request_id: str) -> None:
        """One table fewer points at a block."""


class BlockPool:
    """All blocks of a cache, by id.

    Args:
        num_blocks: How many there are.
        clock: Stamps when a block was last used; without one that is always 0.
        observer: Told of every change.
        eviction: Chooses which cached block loses its content; by default the one that was given
            back longest ago.

    >>> pool = BlockPool(num_blocks=4)
    >>> ids = pool.take(3, "a")
    >>> pool.num_free
    1
    >>> pool.release(ids, "a")
    >>> pool.num_free
    4
    """

    def __init__(
        self,
        num_blocks: int,
        *,
        clock: Clock | None = None,
        observer: BlockObserver | None = None,
        eviction: Eviction | None = None,
    ) -> None:
        self.num_blocks = num_blocks
        self.observer = observer
        self.clock = clock
        self._eviction = eviction
        self._ref_counts = [0] * num_blocks
        self._names: list[bytes | None] = [None] * num_blocks
        self._index: dict[bytes, int] = {}
        self._empty = list(range(num_blocks - 1, -1, -1))  # a stack, block 0 on top
        self._cached: OrderedDict[int, float] = (
            OrderedDict()
        )  # id -> time of last use, oldest first
        self.num_evicted = 0

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, cached ones included."""
        return len(self._empty) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Free blocks whose content can still be reused."""
        return len(self._cached)

    @property
    def num_empty(self) -> int:
        """Free blocks that can be taken without an eviction."""
        return len(self._empty)

    @property
    def num_used(self) -> int:
        """Blocks that some table holds."""
        return self.num_blocks - self.num_free

    def ref_count(self, block_id: int) -> int:
        """Return how many tables hold the block."""
        return self._ref_counts[block_id]

    def name(self, block_id: int) -> bytes | None:
        """Return the hash under which the block's content can be found."""
        return self._names[block_id]

    def find(self, name: bytes) -> int | None:
        """Return the block that has this content, held or cached."""
        return self._index.get(name)

    def is_cached(self, block_id: int) -> bool:
        """Whether the block is free but keeps its content."""
        return block_id in self._cached

    def take(self, count: int, request_id: str) -> list[int]:
        """Take ``count`` blocks to write to, evicting cached ones if no empty one is left.

        Raises:
            OutOfBlocks: fewer than ``count`` blocks are free; nothing was taken.
        """
        if count > self.num_free:
            raise OutOfBlocks(f"{count} blocks asked for, {self.num_free} free")
        observer = self._listener
        taken = []
        for _ in range(count):
            if not self._empty:
                self._evict_next("capacity")
            block_id = self._empty.pop()
            self._ref_counts[block_id] = 1
            taken.append(block_id)
            if observer is not None:
                observer.block_taken(block_id, request_id)
        return taken

    def share(self, block_ids: Iterable[int], request_id: str) -> None:
        """Count one more holder for each block; a cached one is held again."""
        observer = self._listener
        for block_id in block_ids:
            if self._ref_counts[block_id] == 0:
                del self._cached[block_id]  # KeyError: an empty block has nothing to share
                if self._eviction is not None:
                    self._eviction.keep(block_id)
            self._ref_counts[block_id] += 1
            if observer is not None:
                observer.block_shared(block_id, request_id)

    def release(self, block_ids: Iterable[int], request_id: str) -> None:
        """Count one holder fewer for each block.

        Give a table's last block first: the end of a prefix is then evicted before its beginning,
        without which the end could not be found.
        """
        observer, counts, now_s = self._listener, self._ref_counts, self._now_s()
        for block_id in block_ids:
            left = counts[block_id] - 1
            if left < 0:
                raise InvariantViolation(f"block {block_id} released by {request_id} is not held")
            counts[block_id] = left
            if not left:
                name = self._names[block_id]
                if name is None:
                    self._empty.append(block_id)
                else:
                    self._cached[block_id] = now_s
                    if self._eviction is not None:
                        self._eviction.offer(block_id, name)
            if observer is not None:
                observer.block_freed(block_id, request_id)

    def set_name(self, block_id: int, name: bytes) -> None:
        """Let later prompts find a full, held block; the first block of that content wins."""
        self.set_names((block_id,), (name,))

    def set_names(self, block_ids: Iterable[int], names: Iterable[bytes]) -> None:
        """Do as ``set_name`` for several blocks."""
        observer = self._listener
        for block_id, name in zip(block_ids, names, strict=True):
            if name in self._index or self._names[block_id] is not None:
                continue
            self._index[name] = block_id
            self._names[block_id] = name
            if observer is not None:
                observer.block_cached(block_id)

    def forget(self, block_id: int) -> None:
        """Take the name of a held block away: its content is about to change."""
        name = self._names[block_id]
        if name is not None:
            del self._index[name]
            self._names[block_id] = None

    def forget_all(self) -> int:
        """Drop every name and evict every cached block; return how many were evicted."""
        count = len(self._cached)
        while self._cached:
            self._evict_next("reset")
        for block_id in list(self._index.values()):
            self.forget(block_id)
        return count

    @property
    def named(self) -> dict[bytes, int]:
        """A copy of the index: block ids by name."""
        return dict(self._index)

    def evict(self, block_id: int) -> None:
        """Empty a cached block before its turn."""
        used_s = self._cached.pop(block_id)
        if self._eviction is not None:
            self._eviction.keep(block_id)
        self._empty_out(block_id, used_s, "reset")

    def state(self) -> PoolState:
        """Return what a new pool needs to go on as this one will; nothing may be held."""
        if self.num_used:
            raise InvariantViolation(f"{self.num_used} blocks are held")
        names = tuple((block_id, name) for name, block_id in self._index.items())
        return PoolState(names, tuple(self._empty), tuple(self._cached.items()), self.num_evicted)

    def set_state(self, state: PoolState) -> None:
        """Go on as another pool would, of the same size and with the default eviction.

        Raises:
            InvariantViolation: a strategy chooses here, and what it knew is not in the state.
        """
        _must(self._eviction is None, "a state says nothing of what an eviction strategy knew")
        self._ref_counts = [0] * self.num_blocks
        self._names = [None] * self.num_blocks
        self._index = {name: block_id for block_id, name in state.names}
        for block_id, name in state.names:
            self._names[block_id] = name
        self._empty, self._cached = list(state.empty), OrderedDict(state.cached)
        self.num_evicted = state.num_evicted

    @property
    def last_used_s(self) -> dict[int, float]:
        """When each cached block was given back, on the clock, oldest first."""
        return dict(self._cached)

    @property
    def ref_counts(self) -> list[int]:
        """A copy of how many tables hold each block."""
        return self._ref_counts.copy()

    @property
    def names(self) -> list[bytes | None]:
        """A copy of the hashes under which the blocks' contents can be found."""
        return self._names.copy()

    def check(self) -> None:
        """Raise InvariantViolation unless every block is in exactly one state."""
        empty, cached = set(self._empty), set(self._cached)
        held = {i for i, count in enumerate(self._ref_counts) if count > 0}
        _must(len(empty) == len(self._empty), "a block is twice on the empty list")
        _must(not (empty & cached or empty & held or cached & held), "a block is in two states")
        _must(len(empty) + len(cached) + len(held) == self.num_blocks, "a block is in no state")
        _must(all(count >= 0 for count in self._ref_counts), "a reference count is negative")
        _must(all(self._names[i] is None for i in empty), "an empty block has a name")
        _must(all(self._names[i] is not None for i in cached), "a cached block has no name")
        named = {i: name for i, name in enumerate(self._names) if name is not None}
        _must(len(set(named.values())) == len(named), "two blocks have one name")
        _must({name: i for i, name in named.items()} == self._index, "index and names differ")

    @property
    def _listener(self) -> BlockObserver | None:
        """The observer, if it wants to be told."""
        observer = self.observer
        return observer if observer is not None and observer.is_listening else None

    def _evict_next(self, cause: str) -> None:
        if self._eviction is None:
            block_id, used_s = self._cached.popitem(last=False)
        else:
            block_id = self._eviction.choose()
            used_s = self._cached.pop(block_id)
        self._empty_out(block_id, used_s, cause)

    def _empty_out(self, block_id: int, used_s: float, cause: str) -> None:
        self.forget(block_id)
        self._empty.append(block_id)
        self.num_evicted += 1
        if self.observer is not None:
            self.observer.block_evicted(block_id, self._now_s() - used_s, cause)

    def _now_s(self) -> float:
        return self.clock.now() if self.clock is not None else 0.0


def _must(condition: bool, message: str) -> None:
    if not condition:
        raise InvariantViolation(message)
