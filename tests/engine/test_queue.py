"""The waiting line against a sorted list."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.engine.policies import resolve_policy
from toolkit.engine.queue import WINDOW, WaitingQueue
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
        st.tuples(
            st.sampled_from(["pop", "remove", "peek", "rerank", "refresh"]), st.integers(0, 200)
        ),
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
        elif what == "refresh":
            queue.refresh(BY_PRIORITY, VIEW)
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


class Counting:
    """Ranks by priority, and notes whom it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def rank(self, request: Request, view: Any) -> int:
        self.asked.append(request.id)
        return request.priority


def make_line(num_requests: int) -> tuple[WaitingQueue, list[Request], Counting, Any]:
    counting = Counting()
    policy = resolve_policy(counting)
    queue = WaitingQueue()
    requests = [make_request(number, priority=number) for number in range(num_requests)]
    for request in requests:
        queue.push(request, policy, VIEW)
    counting.asked.clear()
    return queue, requests, counting, policy


@pytest.mark.parametrize("num_requests", [0, 7, WINDOW])
def test_a_line_no_longer_than_the_window_is_ranked_as_a_whole(num_requests: int):
    queue, requests, counting, policy = make_line(num_requests)
    queue.refresh(policy, VIEW)
    assert sorted(counting.asked) == sorted(request.id for request in requests)


def test_of_a_long_line_a_step_ranks_the_window_alone():
    queue, requests, counting, policy = make_line(10 * WINDOW)
    for _ in range(3):
        counting.asked.clear()
        queue.refresh(policy, VIEW)
        assert len(set(counting.asked)) == len(counting.asked) == WINDOW
        assert {request.id for request in requests[: WINDOW // 2]} <= set(counting.asked)


def test_everybody_in_a_long_line_has_a_turn():
    num_requests = 4 * WINDOW
    queue, requests, counting, policy = make_line(num_requests)
    for _ in range(num_requests // (WINDOW // 2)):
        queue.refresh(policy, VIEW)
    assert set(counting.asked) == {request.id for request in requests}


def test_whoever_becomes_first_in_a_long_line_is_found_in_turn():
    num_requests = 4 * WINDOW
    queue, requests, _, policy = make_line(num_requests)
    requests[-1].priority = -1
    steps = 0
    while queue.first(1) != [requests[-1]]:
        queue.refresh(policy, VIEW)
        steps += 1
    assert 1 < steps <= num_requests // (WINDOW // 2)
    assert list(queue) == [requests[-1], *requests[:-1]]


def test_entries_of_ranks_gone_by_do_not_pile_up():
    queue, requests, _, policy = make_line(2 * WINDOW)
    for _ in range(20):
        queue.refresh(policy, VIEW)
    assert len(queue) == len(requests)
    assert len(queue._heap) <= 2 * len(requests) + 64
