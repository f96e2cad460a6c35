"""The pool owns every block: held, cached or empty, and never two of these."""

from __future__ import annotations

import pytest

from toolkit.cache.blocks import BlockPool, OutOfBlocks
from toolkit.clock import VirtualClock
from toolkit.errors import InvariantViolation


def name(number: int) -> bytes:
    return number.to_bytes(16, "little")


def cache_blocks(pool: BlockPool, count: int) -> list[int]:
    """Take blocks, name them 0, 1, 2 ..., and give them back in that order."""
    ids = pool.take(count, "a")
    for number, block_id in enumerate(ids):
        pool.set_name(block_id, name(number))
    pool.release(ids, "a")
    return ids


class Diary:
    """Notes what an observer is told."""

    is_listening = True

    def __init__(self) -> None:
        self.lines: list[tuple] = []

    def __getattr__(self, kind: str):
        if not kind.startswith("block_"):
            raise AttributeError(kind)
        return lambda *what: self.lines.append((kind.removeprefix("block_"), *what))


def test_blocks_are_taken_in_order_from_the_first():
    pool = BlockPool(4)
    assert pool.take(3, "a") == [0, 1, 2]
    assert (pool.num_free, pool.num_used, pool.num_cached) == (1, 3, 0)
    pool.check()


def test_taking_nothing_is_fine():
    pool = BlockPool(1)
    assert pool.take(0, "a") == []
    pool.share([], "a")
    pool.release([], "a")
    pool.check()


def test_taking_more_than_is_free_takes_nothing():
    pool = BlockPool(3)
    pool.take(2, "a")
    with pytest.raises(OutOfBlocks, match="2 blocks asked for, 1 free"):
        pool.take(2, "b")
    assert pool.num_free == 1
    pool.check()


def test_a_shared_block_is_free_when_the_last_holder_lets_go():
    pool = BlockPool(2)
    ids = pool.take(1, "a")
    pool.share(ids, "b")
    assert pool.ref_count(0) == 2
    pool.release(ids, "a")
    assert pool.num_free == 1
    pool.release(ids, "b")
    assert pool.num_free == 2
    pool.check()


def test_a_block_released_twice_is_a_bug():
    pool = BlockPool(2)
    ids = pool.take(1, "a")
    pool.release(ids, "a")
    with pytest.raises(InvariantViolation, match=r"block 0 .*a"):
        pool.release(ids, "a")


def test_a_cached_block_released_again_is_a_bug():
    pool = BlockPool(2)
    ids = cache_blocks(pool, 1)
    with pytest.raises(InvariantViolation):
        pool.release(ids, "a")
    pool.check()


def test_a_named_block_is_found_held_and_cached():
    pool = BlockPool(2)
    (block_id,) = pool.take(1, "a")
    pool.set_name(block_id, name(7))
    assert pool.find(name(7)) == block_id
    assert not pool.is_cached(block_id)
    pool.release([block_id], "a")
    assert pool.find(name(7)) == block_id
    assert pool.is_cached(block_id)
    assert pool.num_cached == 1
    pool.share([block_id], "b")
    assert not pool.is_cached(block_id)
    assert pool.find(name(7)) == block_id
    pool.check()


def test_a_nameless_block_is_not_kept():
    pool = BlockPool(2)
    pool.release(pool.take(1, "a"), "a")
    assert pool.num_cached == 0
    assert pool.find(name(7)) is None


def test_the_first_block_of_a_content_keeps_the_name():
    pool = BlockPool(2)
    first, second = pool.take(2, "a")
    pool.set_name(first, name(7))
    pool.set_name(second, name(7))
    assert pool.find(name(7)) == first
    assert pool.name(second) is None
    pool.release([second], "a")
    assert pool.num_cached == 0
    pool.check()


def test_a_block_keeps_its_first_name():
    pool = BlockPool(1)
    (block_id,) = pool.take(1, "a")
    pool.set_name(block_id, name(7))
    pool.set_name(block_id, name(8))
    assert pool.name(block_id) == name(7)
    assert pool.find(name(8)) is None
    pool.check()


def test_an_empty_block_cannot_be_shared():
    pool = BlockPool(2)
    with pytest.raises(KeyError):
        pool.share([0], "a")
    pool.check()


def test_empty_blocks_are_taken_before_cached_ones():
    pool = BlockPool(4)
    cached = cache_blocks(pool, 2)
    taken = pool.take(2, "b")
    assert not set(taken) & set(cached)
    assert pool.num_evicted == 0


def test_the_block_given_back_longest_ago_is_evicted_first():
    pool = BlockPool(3)
    ids = pool.take(3, "a")
    for number, block_id in enumerate(ids):
        pool.set_name(block_id, name(number))
    pool.release([ids[2]], "a")
    pool.release([ids[0], ids[1]], "a")
    assert pool.take(1, "b") == [ids[2]]
    assert pool.find(name(2)) is None
    assert pool.take(1, "b") == [ids[0]]
    assert pool.take(1, "b") == [ids[1]]
    assert pool.num_evicted == 3
    pool.check()


def test_using_a_cached_block_makes_it_the_youngest():
    pool = BlockPool(3)
    ids = cache_blocks(pool, 3)
    pool.share([ids[0]], "b")
    pool.release([ids[0]], "b")
    assert pool.take(1, "c") == [ids[1]]
    assert pool.find(name(0)) == ids[0]


def test_a_forgotten_block_is_empty_when_it_is_given_back():
    pool = BlockPool(1)
    (block_id,) = pool.take(1, "a")
    pool.set_name(block_id, name(7))
    pool.forget(block_id)
    assert pool.find(name(7)) is None
    pool.release([block_id], "a")
    assert pool.num_cached == 0
    pool.check()


def test_forgetting_a_nameless_block_is_fine():
    pool = BlockPool(1)
    pool.forget(pool.take(1, "a")[0])
    pool.check()


def test_forgetting_everything_empties_what_is_cached_and_unnames_what_is_held():
    pool = BlockPool(4)
    held = pool.take(1, "a")
    pool.set_name(held[0], name(9))
    cache_blocks(pool, 2)
    assert pool.forget_all() == 2
    assert pool.num_cached == 0
    assert pool.num_used == 1
    assert all(pool.find(name(number)) is None for number in (0, 1, 9))
    pool.release(held, "a")
    assert pool.num_cached == 0
    pool.check()


# ---- observers


def test_an_observer_is_told_of_every_change():
    clock, diary = VirtualClock(), Diary()
    pool = BlockPool(2, clock=clock, observer=diary)
    ids = pool.take(2, "a")
    pool.set_name(0, name(5))
    pool.share([0], "b")
    pool.release(reversed(ids), "a")
    clock.advance(1.0)
    pool.release([0], "b")
    clock.advance(2.5)
    pool.take(2, "c")
    assert diary.lines == [
        ("taken", 0, "a"),
        ("taken", 1, "a"),
        ("cached", 0),
        ("shared", 0, "b"),
        ("freed", 1, "a"),
        ("freed", 0, "a"),
        ("freed", 0, "b"),
        ("taken", 1, "c"),
        ("evicted", 0, 2.5, "capacity"),
        ("taken", 0, "c"),
    ]


def test_an_observer_that_does_not_listen_is_asked_once_and_told_nothing_of_many_blocks():
    diary = Diary()
    diary.is_listening = False
    pool = BlockPool(8, observer=diary)
    ids = pool.take(8, "a")
    pool.share(ids, "b")
    pool.release(ids, "b")
    pool.release(ids, "a")
    assert not diary.lines
    pool.check()


def test_a_reset_is_a_cause_of_its_own():
    diary = Diary()
    pool = BlockPool(2, observer=diary)
    cache_blocks(pool, 2)
    diary.lines.clear()
    pool.forget_all()
    assert [line[0] for line in diary.lines] == ["evicted", "evicted"]
    assert {line[3] for line in diary.lines} == {"reset"}


# ---- check() finds every corruption that it claims to find


def corrupt_twice_empty(pool: BlockPool) -> None:
    pool._empty.append(pool._empty[0])


def corrupt_empty_and_held(pool: BlockPool) -> None:
    pool._empty.append(0)


def corrupt_empty_and_cached(pool: BlockPool) -> None:
    pool._empty.append(1)


def corrupt_cached_and_held(pool: BlockPool) -> None:
    pool._cached[0] = 0.0


def corrupt_lost(pool: BlockPool) -> None:
    pool._empty.pop()


def corrupt_never_released(pool: BlockPool) -> None:
    pool._ref_counts[0] = 0


def corrupt_negative(pool: BlockPool) -> None:
    pool._ref_counts[3] = -1


def corrupt_empty_with_a_name(pool: BlockPool) -> None:
    pool._names[3] = name(99)
    pool._index[name(99)] = 3


def corrupt_cached_without_a_name(pool: BlockPool) -> None:
    del pool._index[pool._names[1]]
    pool._names[1] = None


def corrupt_name_missing_in_the_index(pool: BlockPool) -> None:
    del pool._index[pool._names[1]]


def corrupt_index_points_elsewhere(pool: BlockPool) -> None:
    pool._index[pool._names[1]] = 0


def corrupt_index_of_nothing(pool: BlockPool) -> None:
    pool._index[name(98)] = 0


def corrupt_two_blocks_of_one_name(pool: BlockPool) -> None:
    pool._names[0] = pool._names[1]


CORRUPTIONS = {
    key.removeprefix("corrupt_").replace("_", " "): value
    for key, value in list(globals().items())
    if key.startswith("corrupt_")
}


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_check_finds_a_corruption(how: str):
    """Block 0 is held, 1 cached, 2 and 3 are empty."""
    pool = BlockPool(4)
    ids = pool.take(2, "a")
    pool.set_name(ids[1], name(1))
    pool.release([ids[1]], "a")
    pool.check()
    CORRUPTIONS[how](pool)
    with pytest.raises(InvariantViolation):
        pool.check()
