"""The pool against a model of it that is too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from toolkit.cache.blocks import BlockPool, OutOfBlocks
from toolkit.clock import VirtualClock

NUM_BLOCKS = 6
NAMES = [bytes([number]) * 16 for number in range(5)]
HOLDERS = st.sampled_from("abc")


class PoolMachine(RuleBasedStateMachine):
    """Holders have lists of blocks; names and the order of release are kept beside."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.pool = BlockPool(NUM_BLOCKS, clock=self.clock)
        self.held: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        self.names: dict[int, bytes] = {}
        self.cached: list[int] = []  # oldest first
        self.num_evicted = 0

    def holders_of(self, block_id: int) -> int:
        return sum(blocks.count(block_id) for blocks in self.held.values())

    @property
    def empty(self) -> set[int]:
        return {i for i in range(NUM_BLOCKS) if self.holders_of(i) == 0 and i not in self.cached}

    @rule(holder=HOLDERS, count=st.integers(0, 4))
    def take(self, holder: str, count: int) -> None:
        free = len(self.empty) + len(self.cached)
        if count > free:
            with pytest.raises(OutOfBlocks):
                self.pool.take(count, holder)
            return
        empty = self.empty
        taken = self.pool.take(count, holder)
        assert len(set(taken)) == count
        num_evicted = max(0, count - len(empty))
        for block_id in self.cached[:num_evicted]:
            del self.names[block_id]
        assert set(taken) <= empty | set(self.cached[:num_evicted])
        assert len(set(taken) & empty) == min(count, len(empty))
        del self.cached[:num_evicted]
        self.num_evicted += num_evicted
        self.held[holder] += taken

    @rule(holder=HOLDERS, data=st.data())
    def share(self, holder: str, data: st.DataObject) -> None:
        full = {i for blocks in self.held.values() for i in blocks} | set(self.cached)
        candidates = sorted(full - set(self.held[holder]))
        if not candidates:
            return
        block_id = data.draw(st.sampled_from(candidates))
        self.pool.share([block_id], holder)
        if block_id in self.cached:
            self.cached.remove(block_id)
        self.held[holder].append(block_id)

    @rule(holder=HOLDERS, data=st.data())
    def release(self, holder: str, data: st.DataObject) -> None:
        if not self.held[holder]:
            return
        count = data.draw(st.integers(1, len(self.held[holder])))
        blocks = [self.held[holder].pop() for _ in range(count)]
        self.pool.release(blocks, holder)
        for block_id in blocks:
            if self.holders_of(block_id) == 0 and block_id in self.names:
                self.cached.append(block_id)

    @rule(holder=HOLDERS, name=st.sampled_from(NAMES), data=st.data())
    def set_name(self, holder: str, name: bytes, data: st.DataObject) -> None:
        if not self.held[holder]:
            return
        block_id = data.draw(st.sampled_from(self.held[holder]))
        self.pool.set_name(block_id, name)
        if block_id not in self.names and name not in self.names.values():
            self.names[block_id] = name

    @rule(holder=HOLDERS, data=st.data())
    def forget(self, holder: str, data: st.DataObject) -> None:
        if self.held[holder]:
            block_id = data.draw(st.sampled_from(self.held[holder]))
            self.pool.forget(block_id)
            self.names.pop(block_id, None)

    @precondition(lambda self: self.names)
    @rule()
    def forget_all(self) -> None:
        assert self.pool.forget_all() == len(self.cached)
        self.num_evicted += len(self.cached)
        self.names.clear()
        self.cached.clear()

    @rule(seconds=st.sampled_from([0.0, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def agrees(self) -> None:
        pool = self.pool
        pool.check()
        assert pool.num_cached == len(self.cached)
        assert pool.num_free == len(self.cached) + len(self.empty)
        assert pool.num_used == NUM_BLOCKS - pool.num_free
        assert pool.num_evicted == self.num_evicted
        for block_id in range(NUM_BLOCKS):
            assert pool.ref_count(block_id) == self.holders_of(block_id)
            assert pool.name(block_id) == self.names.get(block_id)
            assert pool.is_cached(block_id) == (block_id in self.cached)
        by_name = {name: block_id for block_id, name in self.names.items()}
        for name in NAMES:
            assert pool.find(name) == by_name.get(name)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.slow
class TestPoolForLonger(PoolMachine.TestCase):
    settings = settings(max_examples=300, stateful_step_count=50)
