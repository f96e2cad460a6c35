"""Who starts, who gives up its blocks, and what that costs."""

from __future__ import annotations

import pytest

from tests.builders import expected_output, make_engine, params
from toolkit.engine import Engine, StepReport
from toolkit.engine.events import Preempted, Resumed, Scheduled
from toolkit.request import Request, Status


def crowded(policy: str = "fcfs", **kwargs: object) -> Engine:
    """Room for about two requests of six tokens, so that growing ones fight."""
    return make_engine(num_blocks=5, block_size=2, policy=policy, **kwargs)


def add_many(engine: Engine, priorities: list[int], *, max_tokens: int = 6) -> list[Request]:
    return [
        engine.add([index + 1, 7, 9], params(max_tokens), priority=priority)
        for index, priority in enumerate(priorities)
    ]


def run(engine: Engine) -> list[StepReport]:
    reports = []
    while engine.scheduler.has_work:
        reports.append(engine.step())
        assert len(reports) < 1_000
    return reports


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_the_oldest_running_request_is_never_preempted_under_fcfs(enable_prefix_caching: bool):
    engine = crowded(enable_prefix_caching=enable_prefix_caching)
    requests = {request.id: request for request in add_many(engine, [0] * 6)}
    oldest_at: list[int] = []
    engine.on(
        Preempted,
        lambda event: oldest_at.append(
            requests[event.request_id].arrival_index - requests[event.victim_of].arrival_index
        ),
    )
    run(engine)
    assert oldest_at, "this run was to have preemptions"
    # A victim is younger than the one it makes room for, or that one itself (0).
    assert min(oldest_at) >= 0
    assert requests["req-0"].num_preemptions == 0


def test_a_more_urgent_request_is_never_the_victim_of_a_less_urgent_one():
    engine = crowded("priority")
    requests = {r.id: r for r in add_many(engine, [2, 1, 0, 2, 1, 0])}
    losses: list[tuple[int, int]] = []
    engine.on(
        Preempted,
        lambda event: losses.append(
            (requests[event.request_id].priority, requests[event.victim_of].priority)
        ),
    )
    run(engine)
    assert losses
    assert all(victim >= winner for victim, winner in losses)


def test_urgent_requests_start_first():
    engine = make_engine(max_num_seqs=1, policy="priority")
    requests = add_many(engine, [2, 0, 1, 0], max_tokens=1)
    started: list[str] = []
    engine.on(Scheduled, lambda event: started.append(event.request_id))
    run(engine)
    assert started == [requests[i].id for i in (1, 3, 2, 0)]


def test_an_urgent_newcomer_is_served_before_those_that_run():
    engine = make_engine(policy="priority", num_blocks=32)
    calm = add_many(engine, [2, 1], max_tokens=20)
    engine.run_until(lambda report: engine.scheduler.num_running == 2)
    urgent = engine.add([5, 7, 9], params(6), priority=0)
    engine.run_until(lambda report: urgent.status is Status.RUNNING)
    assert engine.scheduler.running == (urgent, calm[1], calm[0])


def test_nobody_starts_in_a_step_that_preempts():
    """The seat and the blocks that a victim gives up are not for a newcomer."""
    engine = make_engine(num_blocks=6, block_size=2, policy="priority", max_num_seqs=2)
    engine.add([1, 7, 9], params(8), priority=0)
    second = engine.add([2, 7, 9, 4], params(8), priority=2)
    engine.step()
    engine.add([3], params(1), priority=1)
    report = engine.run_until(Preempted)
    assert report is not None
    assert report.plan.preempted_ids == (second.id,)
    assert report.plan.admitted_ids == ()


def test_first_come_is_first_served():
    engine = make_engine(max_num_seqs=1)
    requests = add_many(engine, [2, 0, 1, 0], max_tokens=1)
    started: list[str] = []
    engine.on(Scheduled, lambda event: started.append(event.request_id))
    run(engine)
    assert started == [request.id for request in requests]


def test_a_short_prompt_does_not_overtake_a_long_one_that_waits_for_blocks():
    engine = make_engine(num_blocks=4, block_size=2, max_num_batched_tokens=64)
    engine.add([1] * 5, params(3))
    long = engine.add([2] * 6, params(1))
    short = engine.add([3], params(1))
    run(engine)
    assert long.first_scheduled_s <= short.first_scheduled_s


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_a_preempted_request_loses_no_token(enable_prefix_caching: bool):
    engine = crowded(enable_prefix_caching=enable_prefix_caching)
    requests = add_many(engine, [0] * 6)
    lengths = dict.fromkeys((request.id for request in requests), 0)
    while engine.scheduler.has_work:
        engine.step()
        for request in requests:
            assert request.num_output_tokens >= lengths[request.id]
            lengths[request.id] = request.num_output_tokens
    assert sum(request.num_preemptions for request in requests) > 0
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 6)


def test_a_preempted_request_keeps_its_place_in_line():
    engine = crowded()
    requests = add_many(engine, [0] * 6)
    preempted: list[str] = []
    engine.on(Preempted, lambda event: preempted.append(event.request_id))
    engine.run_until(Preempted)
    victim = next(request for request in requests if request.id == preempted[0])
    assert victim.status is Status.PREEMPTED
    assert victim.num_computed_tokens == 0
    assert engine.scheduler.waiting[0] is victim


def test_every_preemption_is_followed_by_a_return():
    engine = crowded()
    add_many(engine, [0] * 6)
    story: list[tuple[str, str]] = []
    engine.on(Preempted, lambda event: story.append((event.request_id, "leaves")))
    engine.on(Resumed, lambda event: story.append((event.request_id, "returns")))
    run(engine)
    for request_id in {request_id for request_id, _ in story}:
        own = [what for name, what in story if name == request_id]
        assert own == ["leaves", "returns"] * (len(own) // 2)


def test_only_tokens_that_were_computed_before_count_as_recomputed():
    """The second prompt is cut into chunks, and preempted before it is whole."""
    engine = make_engine(
        num_blocks=6, block_size=2, max_num_batched_tokens=3, enable_prefix_caching=False
    )
    engine.add([1, 2, 3], params(9))
    second = engine.add([4] * 8, params(1))
    computed_before = 0
    reports = []
    while engine.scheduler.has_work:
        computed = second.num_computed_tokens
        reports.append(engine.step())
        if second.id in reports[-1].plan.preempted_ids:
            computed_before = computed
    assert second.num_preemptions == 1
    assert 0 < computed_before < 8 - 1
    assert second.num_recomputed_tokens == computed_before
    assert sum(report.num_recomputed_tokens for report in reports) == computed_before


def test_reports_name_whom_a_step_preempted_and_whom_it_admitted():
    engine = crowded()
    requests = add_many(engine, [0] * 4)
    for report in run(engine):
        assert set(report.plan.admitted_ids) | set(report.plan.preempted_ids) <= {
            request.id for request in requests
        }
        assert not set(report.plan.admitted_ids) & set(report.plan.preempted_ids)
