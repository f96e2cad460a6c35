"""Who is due when: each once, not before its time, never more at once than allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.client.agenda import Agenda, Due
from toolkit.errors import InvalidConfig


def test_those_that_are_due_come_in_the_order_of_their_times() -> None:
    agenda = Agenda()
    for arrival_id, due_s in enumerate((3.0, 1.0, 2.0)):
        agenda.add(arrival_id, due_s=due_s)
    taken = [agenda.take(2.5) for _ in range(3)]
    assert taken == [Due(1, 1.0, 1.0), Due(2, 2.0, 2.0), None]
    assert agenda.next_s == 3.0


def test_a_follower_is_due_after_the_end_of_the_one_before_it() -> None:
    agenda = Agenda()
    agenda.add(0, due_s=0.0)
    agenda.add(1, due_s=0.5, after=0)
    assert agenda.take(0.0) == Due(0, 0.0, 0.0)
    assert agenda.next_s is None
    assert not agenda.is_done
    agenda.ended(0, 4.0)
    assert agenda.take(4.4) is None
    assert agenda.take(4.5) == Due(1, 4.5, 4.5)


def test_a_follower_may_be_added_after_the_end_of_the_one_before_it() -> None:
    agenda = Agenda()
    agenda.add(0, due_s=0.0)
    agenda.take(0.0)
    agenda.ended(0, 4.0)
    assert agenda.is_done
    agenda.add(1, due_s=0.5, after=0)
    assert agenda.next_s == 4.5


def test_a_limit_holds_back_and_says_since_when_there_is_room() -> None:
    agenda = Agenda(max_in_flight=1)
    agenda.add(0, due_s=0.0)
    agenda.add(1, due_s=1.0)
    assert agenda.take(1.0) == Due(0, 0.0, 0.0)
    assert agenda.take(1.0) is None
    assert agenda.next_s is None
    agenda.ended(0, 5.0)
    assert agenda.take(6.0) == Due(1, scheduled_s=1.0, free_s=5.0)


@st.composite
def loads(draw: st.DrawFn) -> list[tuple[float, int]]:
    """Requests as (due_s, after), in any order of times."""
    num = draw(st.integers(1, 12))
    return [
        (draw(st.floats(0, 10)), draw(st.integers(-1, place - 1)) if place else -1)
        for place in range(num)
    ]


@given(loads(), st.one_of(st.none(), st.integers(1, 4)), st.floats(0.01, 3))
def test_everything_is_sent_once_and_not_early(
    load: list[tuple[float, int]], limit: int | None, service_s: float
) -> None:
    agenda = Agenda(max_in_flight=limit)
    for arrival_id, (due_s, after) in enumerate(load):
        agenda.add(arrival_id, due_s=due_s, after=after)
    under_way: dict[int, float] = {}  # when each ends
    ended: dict[int, float] = {}
    sent = []
    now_s = 0.0
    while not agenda.is_done:
        while due := agenda.take(now_s):
            due_s, after = load[due.arrival_id]
            assert due.scheduled_s == due_s + (ended[after] if after >= 0 else 0.0)
            assert due.scheduled_s <= due.free_s <= now_s
            sent.append(due.arrival_id)
            under_way[due.arrival_id] = now_s + service_s
            assert limit is None or len(under_way) <= limit
        assert agenda.num_in_flight == len(under_way)
        moments = [*under_way.values(), *([] if agenda.next_s is None else [agenda.next_s])]
        now_s = max(now_s, min(moments))
        for arrival_id in [name for name, end_s in under_way.items() if end_s <= now_s]:
            ended[arrival_id] = under_way.pop(arrival_id)
            agenda.ended(arrival_id, ended[arrival_id])
    assert sorted(sent) == list(range(len(load)))


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_with_which_nothing_would_be_sent_is_refused(limit: Any) -> None:
    with pytest.raises(InvalidConfig, match="max_in_flight="):
        Agenda(max_in_flight=limit)
