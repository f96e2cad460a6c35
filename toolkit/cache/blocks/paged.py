"""Give each request a block table in one pool, share prefixes, copy on write.

Request path 4/8: from engine.scheduler, which asks for room before it plans a chunk.
The runner learns of new blocks and copies through the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from toolkit.cache.blocks.pool import BlockPool
from toolkit.cache.blocks.prefix import block_hash, root_hash
from toolkit.cache.blocks.snapshot import BlockSnapshot
from toolkit.clock import Clock
from toolkit.config import CacheConfig
from toolkit.errors import InvariantViolation
from toolkit.request import Request

__all__ = ["BlockCopy", "BlockTable", "Extension", "Fork", "PagedCache", "PrefixMatch", "Span"]


class BlockCopy(NamedTuple):
    """Copy a block's keys and values in all layers before the forward pass.

    The request's table points at the target instead of the source from then on.
    """

    request_id: str
    source_id: int
    target_id: int


class Extension(NamedTuple):
    """What it took to make positions writable: blocks to append, and a copy to make first."""

    new_block_ids: tuple[int, ...]
    copy: BlockCopy | None


_NOTHING_NEW = Extension((), None)


class PrefixMatch(NamedTuple):
    """Blocks that already hold the beginning of a request's tokens."""

    block_ids: tuple[int, ...]
    num_tokens: int


class Span(NamedTuple):
    """Positions [start, end) of a request."""

    request: Request
    start: int
    end: int


class Fork(NamedTuple):
    """What a request's table is to become: the blocks of ``source``'s first ``num_tokens``."""

    source: Request
    target: Request
    num_tokens: int


@dataclass(slots=True)
class BlockTable:
    """The blocks of one request, in order; the first ``num_named`` are in the prefix index."""

    block_ids: list[int] = field(default_factory=list)
    num_named: int = 0


class PagedCache:
    """Block tables over one pool: the part of the KV cache that the scheduler talks to.

    Nothing here allocates a tensor, so the same object serves an engine and a simulator.
    """

    def __init__(self, config: CacheConfig, *, clock: Clock | None = None) -> None:
        self.config = config
        self.block_size = config.block_size
        self.pool = BlockPool(config.num_blocks, clock=clock)
        self._tables: dict[str, BlockTable] = {}
        # By request id: up to where ``extend`` has nothing to do. The positions are in the
        # request's last block, which it alone holds, and do not make it full.
        self.writable: dict[str, int] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks in all."""
        return self.pool.num_blocks

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no request holds."""
        return self.pool.num_free

    @property
    def tables(self) -> dict[str, list[int]]:
        """A copy of every request's block ids."""
        return {request_id: list(table.block_ids) for request_id, table in self._tables.items()}

    def table(self, request_id: str) -> list[int]:
        """Return a copy of one request's block ids; empty when it holds none."""
        table = self._tables.get(request_id)
        return list(table.block_ids) if table is not None else []

    def blocks_for(self, num_tokens: int) -> int:
        """Return the number of blocks that hold ``num_tokens`` tokens."""
        return -(-num_tokens // self.block_size)

    def match_prefix(self, request: Request) -> PrefixMatch:
        """Find the longest run of blocks that already hold this request's first tokens.

        The last token always stays uncached: computing it gives the logits of the next one. So do
        tokens past ``num_reusable_tokens``, which the request itself has to compute.
        """
        return self._match(request, first_index=0)

    def match_ahead(self, request: Request) -> PrefixMatch:
        """Find blocks of others, filled or to be filled in this step, where a request goes on.

        They follow the last block that the request has filled itself; its own next one may be
        partly filled. There are none unless a free block is left for the token after them.
        """
        start = request.num_computed_tokens
        match = self._match(request, first_index=start // self.block_size)
        revived = sum(map(self.pool.is_cached, match.block_ids))
        return match if revived < self.pool.num_free else PrefixMatch((), start)

    def can_hold(self, request: Request, match: PrefixMatch) -> bool:
        """Whether the free blocks suffice for a request's tokens after a prefix match."""
        # A matched block that is cached counts as free now but will not be once it is shared.
        revived = sum(self.pool.is_cached(block_id) for block_id in match.block_ids)
        needed = self.blocks_for(request.num_tokens) - len(match.block_ids)
        return needed <= self.pool.num_free - revived

    def open(self, request: Request, match: PrefixMatch) -> tuple[int, ...]:
        """Start a table with the matched blocks, shared; return their ids."""
        self.pool.share(match.block_ids, request.id)
        self._tables[request.id] = BlockTable(list(match.block_ids), len(match.block_ids))
        return match.block_ids

    def catch_up(self, request: Request, match: PrefixMatch) -> tuple[int, ...]:
        """Put what ``match_ahead`` found in place of the next blocks; return the table."""
        table = self._tables[request.id]
        first_index = match.num_tokens // self.block_size - len(match.block_ids)
        self.writable.pop(request.id, None)
        self.pool.share(match.block_ids, request.id)
        self.pool.release(reversed(table.block_ids[first_index:]), request.id)
        table.block_ids[first_index:] = match.block_ids
        table.num_named = len(table.block_ids)
        return tuple(table.block_ids)

    def fork(self, source: Request, target: Request, num_tokens: int) -> tuple[int, ...]:
        """Start ``target``'s table with the blocks of ``source``'s first ``num_tokens`` tokens.

        The last of them may be partly filled; whoever writes to it first gets a copy.
        """
        table = self._forked(source, self._tables[source.id], target, num_tokens)
        self._tables[target.id] = table
        return tuple(table.block_ids)

    def fork_all(self, forks: Sequence[Fork]) -> None:
        """Fork several tables at once, each from its source's as it was before any of them.

        A target may hold blocks, and be a source too, of itself even: what it held is given back
        when everybody has taken what it needs. A request that keeps only a beginning of its own
        tokens must keep whole blocks, since a full block's name stands for all of its tokens.
        """
        held = dict(self._tables)
        for source, target, num_tokens in forks:
            self.writable.pop(target.id, None)
            self._tables[target.id] = self._forked(source, held[source.id], target, num_tokens)
        for fork in forks:
            if fork.target.id in held:
                self.pool.release(reversed(held[fork.target.id].block_ids), fork.target.id)

    def room(self, request: Request, start: int) -> int:
        """Return how far writing from ``start`` gets with all free blocks: one past the last."""
        table = self._tables[request.id]
        spare = self.pool.num_free - self._is_shared(table, start)
        return (len(table.block_ids) + spare) * self.block_size if spare >= 0 else start

    def extend(self, request: Request, start: int, end: int) -> Extension | None:
        """Make positions [start, end) writable, or return None if blocks do not suffice.

        Blocks that these positions fill are named at once: the plan that asks for them computes
        their content, and within a step all keys and values are written before any is read. So a
        request that arrives in the same step already finds them.
        """
        table = self._tables[request.id]
        size, num_held = self.block_size, len(table.block_ids)
        missing = -(-end // size) - num_held
        if missing > 0 and missing + self._is_shared(table, start) > self.pool.num_free:
            return None
        extension = _NOTHING_NEW
        index = start // size
        if index < num_held:
            block_id = table.block_ids[index]
            if index < table.num_named or self.pool.ref_count(block_id) > 1:
                if self.pool.ref_count(block_id) > 1 and self.pool.num_free == 0:
                    return None
                extension = Extension((), self._make_writable(request, table, index))
        if missing > 0:
            new = self.pool.take(missing, request.id)
            table.block_ids += new
            extension = Extension(tuple(new), extension.copy)
        names_full_blocks = self.config.enable_prefix_caching
        if end // size > table.num_named and names_full_blocks:
            self._name_full_blocks(request, table, end)
        num_slots = len(table.block_ids) * size
        if num_slots - size < end < num_slots:
            self.writable[request.id] = num_slots - names_full_blocks
        else:
            self.writable.pop(request.id, None)
        return extension

    def look_ahead(self, spans: Sequence[Span]) -> list[tuple[int, ...]] | None:
        """Take the blocks that positions to come need, and return their ids, per span.

        Return None, and take nothing, unless all of these positions can be written to with neither
        a copy nor an eviction nor a preemption. Nothing is named: their tokens may be unknown yet.
        """
        size, missing = self.block_size, []
        for request, start, end in spans:
            count = 0
            if end > self.writable.get(request.id, 0):
                table = self._tables[request.id]
                if start // size < table.num_named or self._is_shared(table, start):
                    return None
                count = max(0, -(-end // size) - len(table.block_ids))
            missing.append(count)
        if sum(missing) > self.pool.num_empty:
            return None
        return [
            self._take_ahead(request, start, count) if count else ()
            for (request, start, _), count in zip(spans, missing, strict=True)
        ]

    def _take_ahead(self, request: Request, start: int, count: int) -> tuple[int, ...]:
        table, size = self._tables[request.id], self.block_size
        new = self.pool.take(count, request.id)
        table.block_ids += new
        num_slots = len(table.block_ids) * size
        if start == num_slots - size:  # its last block is new, and all before it are full
            self.writable[request.id] = num_slots - self.config.enable_prefix_caching
        else:
            self.writable.pop(request.id, None)
        return tuple(new)

    def close(self, request: Request) -> None:
        """Give a request's blocks back; named ones stay findable until they are evicted."""
        table = self._tables.pop(request.id, None)
        self.writable.pop(request.id, None)
        if table is not None:
            self.pool.release(reversed(table.block_ids), request.id)

    def num_held(self, request: Request) -> int:
        """Return the number of blocks in the request's table."""
        table = self._tables.get(request.id)
        return len(table.block_ids) if table is not None else 0

    def reset(self) -> int:
        """Forget all reusable content; return the number of blocks evicted."""
        return self.pool.forget_all()

    def snapshot(
        self, num_computed_tokens: Mapping[str, int], *, step: int, time_s: float
    ) -> BlockSnapshot:
        """Copy every block's state; the caller says when it is and how far each table is filled."""
        return BlockSnapshot(
            step=step,
            time_s=time_s,
            block_size=self.block_size,
            ref_counts=self.pool.ref_counts,
            names=self.pool.names,
            last_used_s=self.pool.last_used_s,
            tables=self.tables,
            num_computed_tokens=num_computed_tokens,
        )

    def check(self) -> None:
        """Raise InvariantViolation unless tables and pool agree on every block."""
        self.pool.check()
        counts = [0] * self.num_blocks
        for request_id, table in self._tables.items():
            if len(set(table.block_ids)) != len(table.block_ids):
                raise InvariantViolation(f"{request_id} holds a block twice")
            for block_id in table.block_ids:
                counts[block_id] += 1
        for block_id, count in enumerate(counts):
            if count != self.pool.ref_count(block_id):
                raise InvariantViolation(
                    f"block {block_id}: {count} tables hold it, its reference count is "
                    f"{self.pool.ref_count(block_id)}"
                )
        for request_id in self.writable:
            table = self._tables[request_id]
            last = len(table.block_ids) - 1
            if table.num_named > last or self.pool.ref_count(table.block_ids[last]) > 1:
                raise InvariantViolation(f"{request_id} may not write to its last block unasked")

    def _match(self, request: Request, first_index: int) -> PrefixMatch:
        """Return the blocks found from one index on, and where the last of them ends."""
        found: list[int] = []
        if self.config.enable_prefix_caching:
            num_reusable = min(request.num_tokens - 1, request.num_reusable_tokens)
            for index in range(first_index, num_reusable // self.block_size):
                block_id = self.pool.find(self._hash(request, index))
                if block_id is None:
                    break
                found.append(block_id)
        return PrefixMatch(tuple(found), (first_index + len(found)) * self.block_size)

    def _forked(
        self, source: Request, table: BlockTable, target: Request, num_tokens: int
    ) -> BlockTable:
        self.writable.pop(source.id, None)
        shared = table.block_ids[: self.blocks_for(num_tokens)]
        self.pool.share(shared, target.id)
        return BlockTable(shared, min(table.num_named, num_tokens // self.block_size))

    def _is_shared(self, table: BlockTable, start: int) -> int:
        index = start // self.block_size
        held = index < len(table.block_ids)
        return int(held and self.pool.ref_count(table.block_ids[index]) > 1)

    def _make_writable(self, request: Request, table: BlockTable, index: int) -> BlockCopy | None:
        """Copy the block on write if others hold it; a sole holder may write, nameless."""
        block_id = table.block_ids[index]
        if self.pool.ref_count(block_id) == 1:
            if index < table.num_named:
                self.pool.forget(block_id)
                table.num_named = index
            return None
        (target_id,) = self.pool.take(1, request.id)
        table.block_ids[index] = target_id
        table.num_named = min(table.num_named, index)
        self.pool.release([block_id], request.id)
        if self.pool.observer is not None:
            self.pool.observer.block_copied(block_id, target_id, request.id)
        return BlockCopy(request.id, block_id, target_id)

    def _name_full_blocks(self, request: Request, table: BlockTable, end: int) -> None:
        filled = slice(table.num_named, end // self.block_size)
        self._hash(request, filled.stop - 1)  # and with it those before
        self.pool.set_names(table.block_ids[filled], request.block_hashes[filled])
        table.num_named = filled.stop

    def _hash(self, request: Request, index: int) -> bytes:
        """Return the hash of the request's full block ``index``, computed once per request."""
        hashes, size = request.block_hashes, self.block_size
        while len(hashes) <= index:
            parent = hashes[-1] if hashes else root_hash(request.cache_salt)
            start = len(hashes) * size
            hashes.append(block_hash(parent, request.token_ids[start : start + size]))
        return hashes[index]

    def __repr__(self) -> str:
        pool = self.pool
        return (
            f"PagedCache({pool.num_blocks} blocks x {self.block_size} tokens: {pool.num_used} used,"
            f" {pool.num_cached} cached, {pool.num_empty} empty)"
        )
