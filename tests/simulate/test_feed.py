"""Feed: the order in which a load comes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.simulate import Arrival, Feed


@given(st.lists(st.floats(0, 10), max_size=40), st.lists(st.floats(0, 10), max_size=10))
def test_each_comes_once_and_not_before_it_is_due(due_s: list[float], moments: list[float]):
    arrivals = [Arrival(number, due, 1, 1) for number, due in enumerate(sorted(due_s))]
    feed, seen = Feed(arrivals), list[int]()
    for now_s in [*sorted(moments), 10.0]:
        taken = feed.take(now_s)
        assert all(due.due_s <= now_s for due in taken)
        seen += [due.arrival_id for due in taken]
        assert feed.next_due_s > now_s
    assert seen == list(range(len(arrivals)))


def test_who_follows_comes_after_the_end_and_its_pause():
    feed = Feed([Arrival(0, 0.0, 1, 1), Arrival(1, 2.0, 1, 1, after=0), Arrival(2, 9.0, 1, 1)])
    feed.take(0.0)
    assert feed.next_due_s == 9.0
    assert feed.num_following == 1
    feed.ended(0, 1.5)
    assert [due.due_s for due in feed.take(4.0)] == [3.5]
    assert feed.num_following == 0


def test_all_can_be_taken_at_once():
    feed = Feed([Arrival(0, 0.0, 1, 1), Arrival(1, 2.0, 1, 1), Arrival(2, 0.5, 1, 1, after=0)])
    assert [due.arrival_id for due in feed.take(math.inf)] == [0, 1]
    assert feed.take(math.inf) == []
    feed.ended(0, 1.0)
    assert [due.due_s for due in feed.take(math.inf)] == [1.5]


def test_who_follows_one_that_has_ended_already_is_due_as_well():
    def stream() -> Iterator[Arrival]:
        yield Arrival(0, 0.0, 1, 1)
        yield from (Arrival(number, 1.0, 1, 1) for number in range(1, 10_005))
        yield Arrival(10_005, 0.5, 1, 1, after=0)

    feed = Feed(stream())
    feed.take(0.0)
    feed.ended(0, 0.0)
    taken = feed.take(1.0)
    assert sorted(due.arrival_id for due in taken) == list(range(1, 10_006))
    assert feed.next_due_s == math.inf


def test_a_stream_is_read_as_it_is_needed():
    num_read = 0

    def stream() -> Iterator[Arrival]:
        nonlocal num_read
        for number in range(10**9):
            num_read += 1
            yield Arrival(number, float(number), 1, 1)

    feed = Feed(stream())
    assert len(feed.take(99.0)) == 100
    assert num_read < 20_000


@pytest.mark.parametrize("due_s", [1.0, math.nan, math.inf])
def test_a_load_out_of_order_is_refused(due_s: float):
    with pytest.raises(InvalidConfig, match="arrival 1 is due at"):
        Feed([Arrival(0, 2.0, 1, 1), Arrival(1, due_s, 1, 1)])


@pytest.mark.parametrize("after", [7, 1, 2])
def test_who_follows_one_that_does_not_stand_before_is_refused(after: int):
    load = [Arrival(0, 0.0, 1, 1), Arrival(1, 0.5, 1, 1, after=after), Arrival(2, 1.0, 1, 1)]
    with pytest.raises(InvalidConfig, match=f"arrival 1 follows {after}, which does not stand"):
        Feed(load)
