"""A step costs what it runs, not what waits: counted in Python instructions, never timed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.builders import LedgerRunner, params
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import NOBODY, POLICIES, Engine, SampledToken, StepPlan, StepResult

FEW, MANY = 200, 5_000
NOTICEABLE = 1.2  # what depends on the length of the line would cost 25 times as much


class FastRunner(LedgerRunner):
    """Samples the same token for everybody: only the engine's own work counts here."""

    def run(self, plan: StepPlan) -> StepResult:
        token = (SampledToken(7),)
        return StepResult({chunk.request_id: token for chunk in plan.chunks if chunk.samples})


def make_busy(num_waiting: int, *, policy: Any = "fcfs", num_running: int = 4) -> Engine:
    """An engine with all seats taken and a line before the door."""
    config = EngineConfig(
        cache=CacheConfig(num_blocks=4_096, block_size=16),
        scheduler=SchedulerConfig(max_model_len=8_192, max_num_seqs=num_running),
        policy=policy,
    )
    engine = Engine(FastRunner(16), config)
    for index in range(num_running + num_waiting):
        engine.add([index % 50] * 4, params(4_000))
    engine.step()
    return engine


def instructions(action: Callable[[], object]) -> int:
    """Count the Python instructions that a call executes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


ACTIONS: dict[str, Callable[[Engine], object]] = {
    "a step": lambda engine: engine.step(),
    "adding a request": lambda engine: engine.add([1, 2, 3], params(5)),
    "aborting a running request": lambda engine: engine.abort("req-1"),
    "aborting a waiting request": lambda engine: engine.abort("req-100"),
}


@pytest.mark.parametrize("policy", ["fcfs", "priority", "prefill-first"])
@pytest.mark.parametrize("action", ACTIONS)
def test_the_length_of_the_line_does_not_matter(action: str, policy: str):
    few, many = make_busy(FEW, policy=policy), make_busy(MANY, policy=policy)
    cost = instructions(lambda: ACTIONS[action](few))
    assert instructions(lambda: ACTIONS[action](many)) < NOTICEABLE * cost


def test_the_length_of_the_line_does_not_matter_when_a_seat_becomes_free():
    costs = []
    for num_waiting in (FEW, MANY):
        engine = make_busy(num_waiting)
        engine.abort("req-1")
        costs.append(instructions(engine.step))
    assert costs[1] < NOTICEABLE * costs[0]


def test_a_policy_that_lets_nobody_start_is_asked_once():
    class Closed:
        static = True

        def admit(self, request: Any, view: Any) -> Any:
            return not view.running or NOBODY

    few, many = (make_busy(length, policy=Closed(), num_running=9) for length in (FEW, MANY))
    cost = instructions(few.step)
    assert instructions(many.step) < NOTICEABLE * cost
    assert many.scheduler.num_running == 1


def test_requests_that_were_just_added_can_be_aborted_one_by_one():
    """An interrupted generate() of thousands of prompts, before any step saw them."""
    costs = []
    for num_waiting in (FEW, MANY):
        engine = make_busy(0)
        added = [engine.add([1, 2], params(5)) for _ in range(num_waiting)]
        costs.append(instructions(lambda engine=engine, last=added[-1]: engine.abort(last.id)))
    assert costs[1] < NOTICEABLE * costs[0]


def test_aborting_the_whole_line_is_not_quadratic():
    costs = []
    for num_waiting in (FEW, 10 * FEW):
        engine = make_busy(num_waiting)
        ids = [request.id for request in engine.scheduler.waiting]
        costs.append(instructions(lambda: [engine.abort(name) for name in ids]))  # noqa: B023
    assert costs[1] < 10 * NOTICEABLE * costs[0]


def test_a_step_does_not_cost_more_as_contexts_grow():
    engine = make_busy(0)
    early = instructions(engine.step)
    for _ in range(2_000):
        engine.step()
    # Steps that begin a block cost more than others; none of eight in a row does.
    late = min(instructions(engine.step) for _ in range(8))
    assert late < NOTICEABLE * early


@pytest.mark.parametrize("num_waiting", [0, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_twice_the_running_requests_cost_at_most_twice_as_much(policy: str, num_waiting: int):
    few, many = (
        make_busy(num_waiting, policy=policy, num_running=num_running) for num_running in (32, 64)
    )
    assert instructions(many.step) < 2 * NOTICEABLE * instructions(few.step)


@pytest.mark.parametrize("policy", POLICIES)
def test_twice_the_line_costs_at_most_twice_as_much_to_join(policy: str):
    """What ranks everybody afresh does it once per step, not once per request that joins."""
    costs = []
    for num_waiting in (FEW // 4, FEW // 2):
        engine = make_busy(0, policy=policy)
        costs.append(
            instructions(
                lambda engine=engine, num=num_waiting: [
                    engine.add([7, 7, 7], params(5), tags={"tenant": i % 9}) for i in range(num)
                ]
            )
        )
    assert costs[1] < 2 * NOTICEABLE * costs[0]


def test_a_long_prompt_is_not_hashed_again_in_every_step_that_it_waits():
    """The first in line waits for blocks; its prefix is looked up each step, not recomputed."""
    config = EngineConfig(
        cache=CacheConfig(num_blocks=520, block_size=16),
        scheduler=SchedulerConfig(max_model_len=8_192, max_num_batched_tokens=8_192),
    )
    engine = Engine(FastRunner(16), config)
    engine.add([1] * 4_000, params(100))
    engine.add([2] * 8_000, params(100))
    engine.step()
    waiting = engine.scheduler.waiting[0]
    assert len(waiting.block_hashes) <= 8_000 // 16
    assert instructions(engine.step) < 5_000
