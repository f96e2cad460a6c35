"""Rules of eviction against models of them that look at every block each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.cache.blocks import BlockPool, FarthestUse, FirstIn, LeastUsed
from toolkit.errors import InvariantViolation

Prompts = list[list[bytes]]


@st.composite
def prompts(draw: st.DrawFn) -> Prompts:
    """Prompts as chains of blocks: each follows an earlier one up to somewhere, or none."""
    made: Prompts = []
    num_names = 0
    for _ in range(draw(st.integers(1, 25))):
        beginning = draw(st.sampled_from(made)) if made else []
        kept = beginning[: draw(st.integers(0, len(beginning)))]
        num_new = draw(st.integers(0 if kept else 1, max(1, 5 - len(kept))))
        made.append([*kept, *(f"{num_names + i}".encode() for i in range(num_new))][:5])
        num_names += num_new
    return made


class OldestLast:
    """LRU as a strategy: what the pool does by itself."""

    def __init__(self) -> None:
        self.offered: list[int] = []

    def offer(self, block_id: int, name: bytes) -> None:
        self.offered.append(block_id)

    def keep(self, block_id: int) -> None:
        self.offered.remove(block_id)

    def choose(self) -> int:
        return self.offered.pop(0)


def lookup(pool: BlockPool, prompt: list[bytes]) -> list[int]:
    found = [pool.find(name) for name in prompt]
    return found[: found.index(None)] if None in found else found


def serve(pool: BlockPool, prompt: list[bytes]) -> list[int]:
    """Look a prompt up, take what is missing, give all back; return its blocks."""
    found = lookup(pool, prompt)
    pool.share(found, "a")
    new = pool.take(len(prompt) - len(found), "a")
    for block_id, name in zip(new, prompt[len(found) :], strict=True):
        pool.set_name(block_id, name)
    pool.check()
    pool.release(reversed(found + new), "a")
    pool.check()
    return found + new


@given(prompts(), st.integers(5, 12))
def test_without_a_strategy_the_pool_does_what_lru_as_a_strategy_does(loads, num_blocks):
    plain, told = BlockPool(num_blocks), BlockPool(num_blocks, eviction=OldestLast())
    for prompt in loads:
        assert serve(plain, prompt) == serve(told, prompt)
        assert plain.names == told.names
    assert plain.num_evicted == told.num_evicted


class Shadow:
    """What was given back when, kept for each block that is named, to find the next victim."""

    def __init__(self, rank: Callable[[Shadow, bytes], int]) -> None:
        self.rank = rank
        self.came: dict[bytes, int] = {}
        self.uses: dict[bytes, int] = {}
        self.offered: dict[bytes, tuple[int, int]] = {}
        self.num_offers = 0

    def offer(self, name: bytes) -> None:
        self.num_offers += 1
        self.came.setdefault(name, self.num_offers)
        self.uses[name] = self.uses.get(name, 0) + 1
        self.offered[name] = (self.rank(self, name), self.num_offers)

    def evict(self) -> bytes:
        name = min(self.offered, key=self.offered.__getitem__)
        for table in (self.came, self.uses, self.offered):
            del table[name]
        return name


@pytest.mark.parametrize(
    ("rule", "rank"),
    [
        (FirstIn, lambda shadow, name: shadow.came[name]),
        (LeastUsed, lambda shadow, name: shadow.uses[name]),
    ],
)
@settings(max_examples=50)
@given(loads=prompts(), num_blocks=st.integers(5, 9))
def test_a_rule_evicts_what_a_search_over_all_blocks_would(rule, rank, loads, num_blocks):
    pool, shadow = BlockPool(num_blocks, eviction=rule()), Shadow(rank)
    for prompt in loads:
        before, num_evicted = pool.named, pool.num_evicted
        num_found = len(lookup(pool, prompt))
        held = serve(pool, prompt)
        for name in prompt[:num_found]:
            del shadow.offered[name]
        victims = {shadow.evict() for _ in range(pool.num_evicted - num_evicted)}
        assert before.keys() - pool.named.keys() <= victims
        assert all(pool.named.get(name) != before[name] for name in victims - set(prompt))
        for block_id in reversed(held):
            name = pool.name(block_id)
            if name is not None:
                shadow.offer(name)


def test_what_is_evicted_and_comes_again_starts_anew():
    rule = LeastUsed()
    for _ in range(3):
        rule.offer(0, b"often")
        rule.keep(0)
    rule.offer(0, b"often")
    assert rule.choose() == 0
    rule.offer(1, b"other")
    rule.offer(0, b"often")
    assert rule.choose() == 1


def test_many_holdings_of_the_same_blocks_do_not_make_the_heap_grow():
    rule = FirstIn()
    for number in range(1000):
        rule.offer(number % 3, b"abc"[number % 3 : number % 3 + 1])
        rule.keep(number % 3)
    assert len(rule._heap) < 100


def test_belady_keeps_what_is_needed_soonest():
    rule = FarthestUse({b"a": [0, 9], b"b": [1, 5], b"c": [2]})
    rule.now = 2
    for block_id, name in enumerate((b"a", b"b", b"c")):
        rule.offer(block_id, name)
    assert [rule.choose() for _ in range(3)] == [2, 0, 1]


def test_a_block_can_be_emptied_before_its_turn():
    pool = BlockPool(3, eviction=FirstIn())
    serve(pool, [b"a", b"b"])
    emptied = pool.find(b"a")
    pool.evict(emptied)
    pool.check()
    assert pool.find(b"a") is None
    serve(pool, [b"c", b"d", b"e"])
    assert pool.num_evicted == 2


def test_everything_can_be_forgotten():
    pool = BlockPool(4, eviction=LeastUsed())
    serve(pool, [b"a", b"b"])
    assert pool.forget_all() == 2
    pool.check()
    assert pool.num_cached == 0


def test_a_state_cannot_be_taken_over_by_a_pool_with_a_strategy():
    state = BlockPool(4).state()
    with pytest.raises(InvariantViolation, match="strategy"):
        BlockPool(4, eviction=FirstIn()).set_state(state)
