"""How long each request waited, and for what."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from tests.builders import LedgerRunner, make_engine, params
from toolkit.clock import VirtualClock
from toolkit.engine import Engine, SchedulerView
from toolkit.request import Request, Status


def advance(engine: Engine, seconds: float) -> None:
    assert isinstance(engine.clock, VirtualClock)
    engine.clock.advance(seconds)


def test_time_until_the_first_step_is_the_hosts():
    engine = make_engine()
    advance(engine, 1.0)
    request = engine.add([1, 2], params(1))
    advance(engine, 0.5)
    engine.step()
    assert request.waits_s == pytest.approx({"host": 0.5})


def test_a_request_that_arrives_at_time_zero_waits_like_any_other():
    engine = make_engine()
    request = engine.add([1, 2], params(1))
    assert request.queued_s == 0.0
    advance(engine, 0.5)
    engine.step()
    assert request.waits_s == pytest.approx({"host": 0.5})


@pytest.mark.parametrize(
    ("cause", "limits"),
    [
        ("seqs", {"max_num_seqs": 1}),
        ("budget", {"max_num_batched_tokens": 1}),
        ("blocks", {"num_blocks": 2, "max_model_len": 8}),
    ],
)
def test_a_wait_is_charged_to_what_limited_the_step(cause: str, limits: dict):
    engine = make_engine(**limits)
    advance(engine, 1.0)
    engine.add([1, 2, 3, 4, 5], params(3))
    second = engine.add([6, 7, 8, 9, 10], params(1))
    engine.run_until_idle()
    waited_s = second.first_scheduled_s - second.queued_s
    assert waited_s > 0
    assert second.waits_s == pytest.approx({"host": 0.0, cause: waited_s})


class NotTheSecond:
    """Holds the second request back until the first has ended."""

    def admit(self, request: Request, view: SchedulerView) -> bool:
        return request.arrival_index != 1


def test_a_request_refused_by_the_policy_is_charged_alone():
    engine = make_engine(policy=NotTheSecond(), max_num_seqs=2)
    advance(engine, 1.0)
    requests = [engine.add([i + 1] * 3, params(3)) for i in range(4)]
    engine.run_until_idle()
    for request in requests:
        waited_s = request.first_scheduled_s - request.queued_s
        assert sum(request.waits_s.values()) == pytest.approx(waited_s)
    # In step 0 it was refused; in steps 1 and 2 all seats were taken, and nobody was asked.
    assert requests[1].waits_s == pytest.approx({"host": 0.0, "policy": 0.01, "seqs": 0.02})
    assert requests[3].waits_s == pytest.approx({"host": 0.0, "seqs": 0.03})


class NotAgain:
    """Refuses whoever was preempted, as long as anybody runs."""

    def admit(self, request: Request, view: SchedulerView) -> bool:
        return request.num_preemptions == 0


def test_waiting_after_a_preemption_is_not_waiting_to_start():
    engine = make_engine(num_blocks=4, block_size=2, policy=NotAgain(), max_num_seqs=2)
    advance(engine, 1.0)
    requests = [engine.add([i + 1] * 3, params(5)) for i in range(3)]
    engine.run_until_idle()
    assert any(request.num_preemptions for request in requests)
    for request in requests:
        assert min(request.waits_s.values()) >= 0.0
        waited_s = request.first_scheduled_s - request.queued_s
        assert sum(request.waits_s.values()) == pytest.approx(waited_s)


def test_an_idle_engine_charges_nobody():
    engine = make_engine(max_num_seqs=1)
    engine.add([1], params(2))
    engine.add([2], params(2))
    engine.run_until_idle()
    advance(engine, 3600.0)
    late = engine.add([3], params(1))
    engine.step()
    assert sum(late.waits_s.values()) == pytest.approx(0.0)


def test_a_thousand_short_steps_late_in_a_long_life_leave_no_drift():
    """Each wait is a difference of sums that grow with the engine's age."""
    engine = make_engine(max_num_seqs=1, num_blocks=512)
    advance(engine, 1e6)
    busy = engine.add([1], params(2_000))
    waiting = engine.add([2], params(1))
    for _ in range(1_000):
        engine.step()
        advance(engine, 1e-4)
    engine.abort(busy.id)
    engine.step()
    waited_s = waiting.first_scheduled_s - waiting.queued_s
    assert sum(waiting.waits_s.values()) == pytest.approx(waited_s, abs=1e-6)


class SlowToPrepare(LedgerRunner):
    """Leaves something to be done on another thread for requests that say so."""

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        request.preparation = request.tags.get("preparation")


def engine_that_prepares(**settings: Any) -> Engine:
    engine = make_engine(**settings)
    assert isinstance(engine.clock, VirtualClock)
    engine.runner = SlowToPrepare(engine.config.cache.block_size, engine.clock)
    return engine


def test_a_request_waits_for_its_grammar_without_holding_up_those_behind():
    engine = engine_that_prepares()
    preparation: Future[None] = Future()
    first = engine.add([1, 2, 3], params(2), tags={"preparation": preparation})
    second = engine.add([4, 5, 6], params(3))
    report = engine.step()
    assert report.waiting == ((first.id, "grammar"),)
    assert report.plan.limited_by == "none"
    engine.step()
    preparation.set_result(None)
    engine.run_until_idle()
    waited_s = first.first_scheduled_s - first.queued_s
    assert waited_s == pytest.approx(0.02)
    assert first.waits_s == pytest.approx({"host": 0.0, "grammar": waited_s})
    assert second.waits_s == pytest.approx({"host": 0.0})


def test_an_engine_with_nothing_else_to_do_sleeps_until_a_grammar_is_there():
    engine = engine_that_prepares()
    preparation: Future[None] = Future()
    request = engine.add([1, 2, 3], params(2), tags={"preparation": preparation})
    assert engine.step().plan.is_empty
    threading.Timer(0.05, preparation.set_result, [None]).start()
    engine.run_until_idle()
    assert request.num_output_tokens == 2
    assert engine.step_number < 30  # it did not spin


def test_a_request_whose_grammar_is_still_compiled_can_be_aborted():
    engine = engine_that_prepares()
    request = engine.add([1, 2, 3], params(2), tags={"preparation": Future()})
    engine.step()
    assert engine.abort(request.id)
    assert engine.run_until_idle() is None
    assert request.status is Status.ABORTED


def test_samples_of_one_request_wait_for_a_grammar_together_with_the_policy_asked_as_before():
    engine = engine_that_prepares(policy="shortest-first", max_num_seqs=2)
    preparation: Future[None] = Future()
    waiting = [
        engine.add([index + 1] * 3, params(2), tags={"preparation": preparation})
        for index in range(3)
    ]
    free = [engine.add([index + 7] * 5, params(2)) for index in range(3)]
    engine.step()
    assert [request.status for request in free[:2]] == [Status.RUNNING] * 2
    preparation.set_result(None)
    engine.run_until_idle()
    for request in (*waiting, *free):
        waited_s = request.first_scheduled_s - request.queued_s
        assert sum(request.waits_s.values()) == pytest.approx(waited_s)
    assert all(request.waits_s.get("grammar") for request in waiting)
