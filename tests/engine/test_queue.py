"""The waiting line against a sorted list."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.engine.policies import resolve_policy
from toolkit.engine.queue import WaitingQueue
from toolkit.request import Request
from toolkit.sampling_params import SamplingParams

VIEW: Any = None  # ranks here look at the request alone
BY_PRIORITY = resolve_policy("priority")
FCFS = resolve_policy("fcfs")


def make_request(number: int, priority: int = 0) -> Request:
    return Request(
        id=f"r{number}",
        prompt_token_ids=(1,),
        params=SamplingParams(),
        arrival_index=number,
        arrival_s=0.0,
        seed=0,
        priority=priority,
    )


def in_order(requests: Collection[Request]) -> list[Request]:
    return sorted(requests, key=lambda request: (request.priority, request.arrival_index))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["pop", "remove", "peek", "rerank"]), st.integers(0, 200)),
    ),
    max_size=80,
)


@settings(max_examples=200)
@given(OPERATIONS)
def test_the_line_is_always_in_order(operations: list[tuple[str, int]]):
    queue, model = WaitingQueue(), list[Request]()
    for number, (what, argument) in enumerate(operations):
        if what == "push":
            request = make_request(number, argument)
            queue.push(request, BY_PRIORITY, VIEW)
            model.append(request)
        elif what == "rerank":
            queue.rerank(BY_PRIORITY, VIEW)
        elif not model:
            assert queue.pop() is None
        elif what == "remove":
            request = model.pop(argument % len(model))
            queue.remove(request)
            assert request not in queue
        else:
            entry = queue.pop()
            assert entry is not None
            assert entry[2] is in_order(model)[0]
            if what == "peek":
                queue.push_back(entry)
            else:
                model.remove(entry[2])
        assert len(queue) == len(model)
        assert list(queue) == in_order(model)
        assert all(request in queue for request in model)


def test_removing_somebody_else_changes_nothing():
    queue = WaitingQueue()
    queue.push(make_request(0), FCFS, VIEW)
    queue.remove(make_request(7))
    queue.remove(make_request(8))
    assert len(queue) == 1
    assert "r0" not in queue


def test_removed_entries_do_not_pile_up():
    queue = WaitingQueue()
    for number in range(5_000):
        request = make_request(number)
        queue.push(request, FCFS, VIEW)
        if number >= 10:
            queue.remove(request)
    assert len(queue) == 10
    assert len(queue._heap) < 200


@pytest.mark.parametrize("policy", [FCFS, BY_PRIORITY])
def test_a_change_of_policy_changes_the_order(policy: Any):
    queue = WaitingQueue()
    requests = [make_request(number, priority=-number) for number in range(4)]
    for request in requests:
        queue.push(request, FCFS, VIEW)
    queue.rerank(policy, VIEW)
    assert list(queue) == (requests if policy is FCFS else requests[::-1])
