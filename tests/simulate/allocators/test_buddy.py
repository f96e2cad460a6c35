"""Regions of a buddy allocator: powers of two, aligned, disjoint, joined again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.cache.blocks import OutOfBlocks
from toolkit.errors import InvariantViolation
from toolkit.simulate.allocators import Buddy, BuddyPool, region_size

LENGTHS = st.integers(1, 300)


@given(num_slots=LENGTHS, acts=st.lists(st.tuples(st.booleans(), st.integers(1, 80)), max_size=60))
def test_regions_are_aligned_powers_of_two_and_never_overlap(
    num_slots: int, acts: list[tuple[bool, int]]
) -> None:
    buddy = Buddy(num_slots)
    held: list[range] = []
    for gives_back, count in acts:
        if gives_back and held:
            buddy.give_back(held.pop(count % len(held)))
        elif buddy.can_take(count):
            region = buddy.take(count)
            assert len(region) == region_size(count)
            assert region.start % len(region) == 0
            held.append(region)
        else:
            with pytest.raises(OutOfBlocks):
                buddy.take(count)
        slots = sorted(slot for region in (*held, *buddy.free_regions) for slot in region)
        assert slots == list(range(num_slots)), "every slot is in one region, held or free"
    for region in held:
        buddy.give_back(region)
    assert buddy.free_regions == Buddy(num_slots).free_regions


@given(num_slots=st.integers(1, 20_000), size=st.integers(0, 11).map(lambda bits: 1 << bits))
def test_as_many_regions_of_one_size_fit_as_the_line_has_room_for(
    num_slots: int, size: int
) -> None:
    buddy = Buddy(num_slots)
    count = 0
    while buddy.can_take(size):
        buddy.take(size)
        count += 1
    assert count == num_slots // size


def test_a_region_that_is_given_back_joins_its_buddy_alone():
    """The right half of the first region and the left half of the second touch: no buddies."""
    buddy = Buddy(64)
    regions = [buddy.take(16) for _ in range(4)]
    buddy.give_back(regions[1])
    buddy.give_back(regions[2])
    assert buddy.largest == 16
    buddy.give_back(regions[0])
    assert buddy.largest == 32


@given(acts=st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=40))
def test_the_pool_agrees_with_its_free_regions(acts: list[tuple[bool, int]]) -> None:
    pool = BuddyPool(100)
    held: list[list[int]] = []
    for gives_back, count in acts:
        if gives_back and held:
            pool.release(reversed(held.pop(count % len(held))), "a")
        elif pool.can_take(count):
            held.append(pool.take(count, "a"))
        pool.check()
        assert pool.num_used == sum(map(len, held))


def test_a_part_of_a_region_cannot_be_given_back():
    pool = BuddyPool(64)
    region = pool.take(32, "a")
    with pytest.raises(InvariantViolation, match="not its region"):
        pool.release([region[0], region[2]], "a")


def test_an_empty_pool_goes_on_as_another_one():
    pool = BuddyPool(48)
    pool.release(pool.take(20, "a"), "a")
    other = BuddyPool(48)
    other.take(16, "b")
    other.set_state(pool.state())
    other.check()
    assert other.take(32, "b") == pool.take(32, "a")
