"""Batches that begin and end together, on the engine as it is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.builders import LedgerRunner
from toolkit.clock import VirtualClock
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine
from toolkit.engine.policy import SchedulerView
from toolkit.errors import InvalidConfig
from toolkit.request import Request, SamplingParams
from toolkit.simulate import StaticBatching


def make_engine(
    batch_size: int, *, num_blocks: int = 64, budget: int = 64, policy: Any = None
) -> Engine:
    clock = VirtualClock()
    config = EngineConfig(
        cache=CacheConfig(num_blocks=num_blocks, block_size=4),
        scheduler=SchedulerConfig(max_model_len=40, max_num_seqs=16, max_num_batched_tokens=budget),
        policy=policy or StaticBatching(batch_size),
        check_every_step=True,
    )
    return Engine(LedgerRunner(4, clock), config, clock=clock)


def params(num_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=num_tokens, ignore_eos=True, temperature=0)


def test_a_batch_takes_as_long_as_its_longest_output():
    engine = make_engine(2)
    requests = [engine.add([number], params(length)) for number, length in enumerate((2, 7, 3, 1))]
    engine.run_until_idle()
    assert engine.step_number + 1 == 7 + 3
    starts = [request.first_scheduled_s for request in requests]
    assert starts == pytest.approx([0, 0, 0.07, 0.07])


def test_a_seat_stays_empty_until_the_batch_is_over():
    engine = make_engine(2)
    for number, length in enumerate((1, 5, 1)):
        engine.add([number], params(length))
    running = []
    while engine.scheduler.has_work:
        running.append(engine.step().num_running)
    assert running == [2, 1, 1, 1, 1, 1]


def test_who_comes_later_waits_for_the_next_batch_though_there_is_a_seat():
    engine = make_engine(4)
    engine.add([1], params(3))
    engine.step()
    late = engine.add([2], params(1))
    engine.step()
    assert late.first_scheduled_s is None
    engine.run_until_idle()
    assert late.first_scheduled_s == pytest.approx(0.03)


def test_a_batch_that_exceeds_the_budget_of_a_step_starts_over_several():
    engine = make_engine(3, budget=8)
    requests = [engine.add([number] * 8, params(6)) for number in range(4)]
    engine.run_until_idle()
    starts = [request.first_scheduled_s for request in requests]
    assert starts[:3] == sorted(starts[:3])
    assert starts[2] < 0.06, "it is a member of the first batch"
    assert starts[3] >= max(request.finished_s for request in requests[:3])


def test_a_member_that_was_preempted_belongs_to_its_batch_still():
    engine = make_engine(2, num_blocks=10)
    requests = [engine.add([number] * 8, params(30)) for number in range(3)]
    engine.run_until_idle()
    assert requests[1].num_preemptions > 0
    assert requests[2].first_scheduled_s >= max(r.finished_s for r in requests[:2])


@pytest.mark.parametrize("batch_size", [0, -1, True, 2.5])
def test_a_batch_has_at_least_one_seat(batch_size: object) -> None:
    with pytest.raises(InvalidConfig, match="batch_size"):
        StaticBatching(batch_size)


class Unhurried(StaticBatching):
    """The same policy, which has everybody in line asked in each step."""

    def admit(self, request: Request, view: SchedulerView) -> bool:
        return bool(super().admit(request, view))


@pytest.mark.parametrize("seed", range(6))
def test_who_is_not_asked_would_not_have_been_let_in(seed: int):
    draw = random.Random(seed)
    lengths = [(draw.randint(1, 14), draw.randint(1, 20)) for _ in range(40)]
    starts = []
    for policy in (StaticBatching(5), Unhurried(5)):
        engine = make_engine(5, num_blocks=14, budget=12, policy=policy)
        requests = []
        for number, (num_prompt, num_output) in enumerate(lengths):
            requests.append(engine.add([number] * num_prompt, params(num_output)))
            if number % 3 == 0:
                engine.step()
        engine.run_until_idle()
        assert any(request.num_preemptions for request in requests)
        starts.append([(r.first_scheduled_s, r.finished_s, r.preempted_s) for r in requests])
    assert starts[0] == starts[1]


def test_a_step_names_the_first_of_those_who_wait_for_the_batch_to_end():
    engine = make_engine(1)
    for number in range(4):
        engine.add([number], params(3))
    engine.step()
    report = engine.step()
    assert report.plan.limited_by == "policy"
    assert [cause for _, cause in report.waiting] == ["policy"]
    assert engine.scheduler.num_waiting == 3
