"""A policy ranks and advises; the scheduler keeps every request moving, and says so."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from tests.builders import expected_output, make_engine, params
from tests.engine.scenarios import kept_by
from toolkit.engine import POLICIES, Engine, SchedulerView
from toolkit.engine.events import Preempted, Scheduled
from toolkit.errors import InvalidConfig
from toolkit.request import Request


def order_of_first_chunks(engine: Engine) -> list[str]:
    started: list[str] = []
    engine.on(Scheduled, lambda event: started.append(event.request_id))
    engine.run_until_idle()
    return list(dict.fromkeys(started))


def longest_first(request: Request, view: SchedulerView) -> int:
    return -request.num_prompt_tokens


# ---- what can be a policy


def test_a_function_is_a_policy():
    engine = make_engine(policy=longest_first, max_num_seqs=1)
    for length in (2, 5, 3):
        engine.add([length] * length, params(1))
    assert order_of_first_chunks(engine) == ["req-1", "req-2", "req-0"]
    assert engine.scheduler.policy.name == "longest_first"


def test_ties_go_by_arrival():
    engine = make_engine(policy=lambda request, view: "same", max_num_seqs=1)
    for index in range(4):
        engine.add([index], params(1))
    assert order_of_first_chunks(engine) == ["req-0", "req-1", "req-2", "req-3"]


class Backwards:
    def rank(self, request: Request, view: SchedulerView) -> int:
        return -request.arrival_index


@pytest.mark.parametrize("policy", [Backwards, Backwards()])
def test_a_class_or_its_instance_is_a_policy(policy: Any):
    engine = make_engine(policy=policy, max_num_seqs=1)
    for index in range(3):
        engine.add([index], params(1))
    assert order_of_first_chunks(engine) == ["req-2", "req-1", "req-0"]
    assert engine.scheduler.policy.name == "Backwards"


def test_a_policy_without_a_rank_is_first_come_first_served():
    class OnlyChunks:
        def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
            return 2

    engine = make_engine(policy=OnlyChunks(), max_num_seqs=1)
    for index in range(3):
        engine.add([index] * 3, params(1))
    assert order_of_first_chunks(engine) == ["req-0", "req-1", "req-2"]


@pytest.mark.parametrize("policy", ["shortest", 7, None, object()])
def test_anything_else_is_refused_with_the_choices(policy: Any):
    with pytest.raises(InvalidConfig, match=r"rank|fcfs"):
        make_engine(policy=policy)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_built_in_policy_serves_every_request(name: str):
    engine = make_engine(policy=name, num_blocks=6, block_size=2)
    requests = [engine.add([i, 7, 9], params(6), priority=-i) for i in range(6)]
    engine.run_until_idle()
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 6)


# ---- when a policy is asked


class CountsRanks:
    def __init__(self, *, static: bool) -> None:
        self.static = static
        self.num_calls = 0

    def rank(self, request: Request, view: SchedulerView) -> int:
        self.num_calls += 1
        return 0


def test_a_static_policy_ranks_each_request_once():
    policy = CountsRanks(static=True)
    engine = make_engine(policy=policy, max_num_seqs=1)
    for index in range(20):
        engine.add([index], params(2))
    engine.run_until_idle()
    assert policy.num_calls == 20


def test_a_dynamic_policy_ranks_afresh_in_every_step():
    policy = CountsRanks(static=False)
    engine = make_engine(policy=policy, max_num_seqs=1)
    for index in range(3):
        engine.add([index], params(2))
    engine.step()
    asked = policy.num_calls
    engine.step()
    assert policy.num_calls == asked + 3


def test_a_rank_may_change_while_a_request_waits():
    """The longer one has waited long enough by the time there is room."""

    def impatient(request: Request, view: SchedulerView) -> float:
        waited_s = view.now_s - request.arrival_s
        return request.num_prompt_tokens - 1000 * waited_s

    engine = make_engine(policy=impatient, max_num_seqs=1)
    engine.add([1], params(5))
    engine.step()
    engine.add([2] * 9, params(1))
    engine.step()
    engine.add([3], params(1))
    assert order_of_first_chunks(engine)[1:] == ["req-1", "req-2"]


def test_a_policy_can_be_changed_between_steps():
    engine = make_engine(max_num_seqs=1)
    for length in (1, 2, 5, 3):
        engine.add([length] * length, params(2))
    engine.step()
    engine.scheduler.policy = longest_first
    assert [request.id for request in engine.scheduler.waiting] == ["req-2", "req-3", "req-1"]
    engine.scheduler.policy = "fcfs"
    assert [request.id for request in engine.scheduler.waiting] == ["req-1", "req-2", "req-3"]
    engine.run_until_idle()


def test_a_change_of_policy_also_orders_those_that_run():
    engine = make_engine(num_blocks=16)
    requests = [engine.add([i], params(4), priority=-i) for i in range(3)]
    engine.step()
    engine.set_policy("priority")
    assert engine.scheduler.running == tuple(reversed(requests))


def test_a_refused_policy_changes_nothing():
    engine = make_engine()
    engine.add([1], params(2))
    with pytest.raises(InvalidConfig):
        engine.set_policy("best")
    assert engine.scheduler.policy.name == "fcfs"
    engine.run_until_idle()


# ---- what it sees


def test_the_view_tells_time_budget_blocks_and_who_is_there():
    seen: list[tuple] = []

    class Looks:
        def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
            seen.append(
                (
                    view.now_s,
                    view.token_budget,
                    [other.id for other in view.running],
                    [other.id for other in view.waiting],
                    view.num_free_blocks,
                    view.last_step,
                    budget,
                )
            )
            return budget

    engine = make_engine(policy=Looks(), num_blocks=4, max_num_seqs=1)
    engine.add([1, 2, 3, 4, 5], params(1))
    engine.add([1], params(1))
    engine.clock.advance(1.5)
    engine.step()
    assert seen == [(1.5, 16, ["req-0"], ["req-1"], 4, -1, 16)]


def test_the_view_knows_what_is_cached():
    engine = make_engine(block_size=4)
    engine.add([1] * 9, params(1))
    engine.run_until_idle()
    asked: dict[str, int] = {}

    def by_cache(request: Request, view: SchedulerView) -> int:
        asked[request.id] = view.cached_tokens(request)
        return -asked[request.id]

    engine.set_policy(by_cache)
    engine.add([2] * 9, params(1))
    engine.add([1] * 9, params(1))
    engine.step()
    assert asked == {"req-1": 0, "req-2": 8}


# ---- when it is overruled, it is told so


class Never:
    def admit(self, request: Request, view: SchedulerView) -> bool:
        return False


def test_a_policy_that_admits_nobody_is_overruled_when_nothing_runs(
    caplog: pytest.LogCaptureFixture,
):
    engine = make_engine(policy=Never())
    requests = [engine.add([i], params(2)) for i in range(3)]
    most_running = 0
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        while engine.scheduler.has_work:
            most_running = max(most_running, engine.step().num_running)
    assert most_running == 1
    assert all(request.num_output_tokens == 2 for request in requests)
    assert "Never" in caplog.text


class Advises:
    """Gives every request the same chunk."""

    def __init__(self, advice: Any) -> None:
        self.advice = advice

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> Any:
        return self.advice


@pytest.mark.parametrize("advice", [0, -3, None, "many", 2.5])
def test_a_policy_that_gives_nobody_a_token_is_overruled_with_a_warning(
    advice: Any, caplog: pytest.LogCaptureFixture
):
    engine = make_engine(policy=Advises(advice))
    requests = [engine.add([i, 2, 3], params(3)) for i in range(3)]
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        while engine.scheduler.has_work:
            assert engine.step().plan.num_tokens > 0
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 3)
    assert "Advises" in caplog.text
    assert len(caplog.records) < 4


def test_a_chunk_larger_than_budget_or_prompt_is_cut():
    class Greedy:
        def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
            return 10**6

    engine = make_engine(policy=Greedy(), max_num_batched_tokens=5)
    engine.add([1] * 7, params(1))
    assert [engine.step().plan.num_tokens for _ in range(2)] == [5, 2]


def test_a_chunk_advised_is_the_chunk_planned():
    class Three:
        def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
            return 3

    engine = make_engine(policy=Three())
    engine.add([1] * 7, params(1))
    assert [engine.step().plan.num_tokens for _ in range(3)] == [3, 3, 1]


class WrongVictim:
    """Always names somebody who cannot be preempted."""

    def __init__(self, stranger: Any) -> None:
        self.stranger = stranger

    def victim(self, candidates: Any, view: SchedulerView) -> Any:
        return self.stranger


@pytest.mark.parametrize("stranger", [None, "req-0", object()])
def test_a_victim_that_cannot_be_preempted_is_replaced_with_a_warning(
    stranger: Any, caplog: pytest.LogCaptureFixture
):
    engine = make_engine(num_blocks=5, block_size=2, policy=WrongVictim(stranger))
    requests = [engine.add([i, 7, 9], params(6)) for i in range(4)]
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        engine.run_until_idle()
    assert "WrongVictim" in caplog.text
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 6)


def test_the_policy_chooses_the_victim():
    chosen: list[str] = []

    class SecondToLast:
        def victim(self, candidates: Any, view: SchedulerView) -> Request:
            chosen.append(candidates[-2].id)
            return candidates[-2]

    engine = make_engine(num_blocks=6, block_size=2, policy=SecondToLast())
    victims: list[str] = []
    engine.on(Preempted, lambda event: victims.append(event.request_id))
    requests = [engine.add([i, 7, 9], params(7)) for i in range(5)]
    engine.run_until_idle()
    assert chosen
    # Nobody is asked when there is no choice.
    assert [name for name in victims if name in chosen][: len(chosen)] == chosen
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 7)


def test_a_step_that_served_everybody_was_limited_by_nothing():
    engine = make_engine()
    engine.add([1, 2, 3], params(3))
    assert [engine.step().plan.limited_by for _ in range(3)] == ["none"] * 3


# ---- a policy that breaks is overruled where it does


class Mood:
    """A policy of which one method raises, now and then or always."""

    def __init__(self, method: str, every: int) -> None:
        self.num_calls = 0
        self._every = every
        setattr(self, method, getattr(self, f"_{method}"))

    def _perhaps_raise(self) -> None:
        self.num_calls += 1
        if self.num_calls % self._every == 0:
            raise ZeroDivisionError("a policy's own mistake")

    def _rank(self, request: Request, view: SchedulerView) -> int:
        self._perhaps_raise()
        return request.arrival_index

    def _admit(self, request: Request, view: SchedulerView) -> bool:
        self._perhaps_raise()
        return True

    def _chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        self._perhaps_raise()
        return 4

    def _victim(self, candidates: Any, view: SchedulerView) -> Request:
        self._perhaps_raise()
        return candidates[-1]


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("method", ["rank", "admit", "chunk", "victim"])
def test_a_method_that_raises_is_overruled_with_one_warning(
    method: str, every: int, static: bool, caplog: pytest.LogCaptureFixture
):
    policy = Mood(method, every)
    policy.static = static
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        engine = make_engine(num_blocks=6, block_size=2, policy=policy)
        requests = [engine.add([i, 7, 9, 11, 13], params(6)) for i in range(4)]
        for _ in range(500):
            if not engine.scheduler.has_work:
                break
            engine.step()
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 6)
    assert kept_by(engine) == {}
    raised = policy.num_calls >= every
    assert len(caplog.records) == raised
    assert ("ZeroDivisionError" in caplog.text) == raised


RANKS: dict[str, list[Any]] = {
    "numbers and text": [0, "zero"],
    "nothing": [None],
    "tuples that differ late": [(0, 1), (1, "a"), (1, 2)],
    "not a number": [float("nan"), 1.0],
    "arrays": [np.array([1, 2]), np.array([2, 1])],
}


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("ranks", RANKS)
def test_ranks_that_cannot_be_compared_lose_no_request(ranks: str, static: bool):
    class Odd:
        def rank(self, request: Request, view: SchedulerView) -> Any:
            return RANKS[ranks][request.arrival_index % len(RANKS[ranks])]

    policy = Odd()
    policy.static = static
    engine = make_engine(num_blocks=6, block_size=2, policy=policy)
    requests = [engine.add([i, 7, 9], params(6)) for i in range(6)]
    for _ in range(500):
        if not engine.scheduler.has_work:
            break
        engine.step()
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 6)
