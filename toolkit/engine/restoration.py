"""What a runner must compute again to hold the keys and values of an earlier moment.

While a journal is played, the block table of each chunk is noted. Read backwards from the moment
that is wanted, the notes tell which chunks still matter: those that wrote to a block that somebody
reads later. A block that was given up and written anew since needs nothing of what it held before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from toolkit.cache.blocks import BlockCopy, PagedCache
from toolkit.engine.entries import CachedBlock
from toolkit.engine.plan import ScheduledChunk, StepPlan
from toolkit.request import Request

__all__ = ["Footprints"]


class _Footprint(NamedTuple):
    """One chunk and the blocks it read or wrote: the first ``num_blocks`` of a table."""

    chunk: ScheduledChunk
    table: list[int]  # which may have grown since
    num_blocks: int


class Footprints:
    """The chunks and copies of all steps so far, with their block tables."""

    def __init__(self, block_size: int) -> None:
        self.num_found: dict[str, int] = {}  # where each request's row began
        self._block_size = block_size
        self._tables: dict[str, list[int]] = {}
        self._steps: list[tuple[StepPlan, list[_Footprint]]] = []

    def note(self, plan: StepPlan, *, is_lost: bool) -> None:
        """Note a step; one that was lost wrote nothing that anybody reads."""
        for chunk in plan.chunks:
            if chunk.is_first:
                self._tables[chunk.request_id] = list(chunk.new_block_ids)
                self.num_found[chunk.request_id] = chunk.start
            else:
                self._tables[chunk.request_id] += chunk.new_block_ids
        for copy in plan.copies:
            table = self._tables[copy.request_id]
            self._tables[copy.request_id] = [
                copy.target_id if block_id == copy.source_id else block_id for block_id in table
            ]
        if not is_lost:
            prints = [
                _Footprint(c, self._tables[c.request_id], -(-c.end // self._block_size))
                for c in plan.chunks
            ]
            self._steps.append((plan, prints))

    def note_contents(self, contents: Sequence[CachedBlock], num_blocks: int) -> None:
        """Note what the blocks held before the first step, as chunks that would compute it."""
        size = self._block_size
        ids = {block.token_ids: block.block_id for block in contents}
        done: set[tuple[int, ...]] = set()
        # An orphan's beginning was evicted, and is computed where others come to lie afterwards.
        orphans = [b for b in contents if any(p not in ids for p in _prefixes(b, size))]
        scratch = [*{*range(num_blocks)} - {orphan.block_id for orphan in orphans}]
        for orphan in orphans:
            table = [*scratch[: len(orphan.token_ids) // size - 1], orphan.block_id]
            self._note_content(orphan, 0, table)
            done.add(orphan.token_ids)
        # Longest first: a chunk computes a whole prefix, as far as no other one has.
        for block in sorted(contents, key=lambda block: -len(block.token_ids)):
            prefixes = _prefixes(block, size)
            if block.token_ids not in done:
                num_done = sum(prefix in done for prefix in prefixes)
                self._note_content(block, num_done * size, [ids[prefix] for prefix in prefixes])
                done.update(prefixes)

    def _note_content(self, block: CachedBlock, start: int, table: list[int]) -> None:
        tokens = block.token_ids
        chunk = ScheduledChunk(
            f"block-{block.block_id}", start, len(tokens), tokens[start:], (), True, False
        )
        plan = StepPlan(-1, (chunk,), num_tokens=chunk.num_tokens)
        self._steps.append((plan, [_Footprint(chunk, table, len(table))]))

    def needed_for(
        self, cache: PagedCache, running: Sequence[Request], *, whole: Collection[str]
    ) -> tuple[StepPlan, ...]:
        """Return the steps that bring the cache's blocks to what they hold now.

        Args:
            cache: As it is at the moment that is wanted.
            running: Who reads its blocks.
            whole: Requests of which every chunk is wanted, whoever reads it.
        """
        live = {b for b in range(cache.num_blocks) if cache.pool.name(b) is not None}
        for request in running:
            live.update(cache.table(request.id)[: cache.blocks_for(request.num_computed_tokens)])
        steps = []
        for plan, prints in reversed(self._steps):
            kept = self._kept(prints, live, whole)
            copies = self._copies(plan.copies, live)
            if kept or copies:
                steps.append(_step(plan, kept, copies))
        return tuple(reversed(steps))

    def _kept(
        self, prints: list[_Footprint], live: set[int], whole: Collection[str]
    ) -> list[_Footprint]:
        """Return the chunks that wrote to live blocks; turn ``live`` into what they began with."""
        chosen: set[int] = set()
        is_changing = True
        while is_changing:  # within a step one chunk may read what another writes
            is_changing = False
            for place, (chunk, table, num_blocks) in enumerate(prints):
                if place in chosen:
                    continue
                written = table[chunk.start // self._block_size : num_blocks]
                if chunk.request_id in whole or not live.isdisjoint(written):
                    chosen.add(place)
                    live.update(table[:num_blocks])
                    is_changing = True
        kept = [prints[place] for place in sorted(chosen)]
        for chunk, table, num_blocks in kept:  # whose first slot is written holds nothing older
            live.difference_update(table[-(-chunk.start // self._block_size) : num_blocks])
        return kept

    def _copies(self, copies: tuple[BlockCopy, ...], live: set[int]) -> tuple[BlockCopy, ...]:
        kept = tuple(copy for copy in copies if copy.target_id in live)
        live.difference_update(copy.target_id for copy in kept)
        live.update(copy.source_id for copy in kept)
        return kept


def _step(plan: StepPlan, kept: Sequence[_Footprint], copies: tuple[BlockCopy, ...]) -> StepPlan:
    chunks = tuple(
        chunk._replace(new_block_ids=tuple(table[:num_blocks]), is_first=True, samples=False)
        for chunk, table, num_blocks in kept
    )
    num_tokens = sum(chunk.num_tokens for chunk in chunks)
    return StepPlan(plan.step, chunks, copies, num_tokens=num_tokens)


def _prefixes(block: CachedBlock, size: int) -> list[tuple[int, ...]]:
    tokens = block.token_ids
    return [tokens[:end] for end in range(size, len(tokens) + 1, size)]
