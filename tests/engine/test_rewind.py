"""Going back to an earlier step, and on from there."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import expected_output, make_engine, params
from tests.engine.pasts import Run
from tests.engine.random_acts import random_act
from toolkit.engine import POLICIES
from toolkit.engine import journal as journal_module
from toolkit.engine.events import Preempted, Rewound
from toolkit.errors import EngineError, EngineIsRunning, InvalidParameter, InvalidRequest
from toolkit.request import Status


def random_run(seed: int, num_steps: int) -> Run:
    rng = random.Random(seed)
    engine = make_engine(
        num_blocks=rng.choice([14, 20, 40]),
        block_size=2,
        max_model_len=26,
        max_num_seqs=rng.choice([2, 4, 8]),
        max_num_batched_tokens=rng.choice([3, 8, 32]),
        policy=rng.choice([*POLICIES]),
        enable_prefix_caching=rng.random() < 0.8,
        asynchronous=rng.random() < 0.5,
    )
    run = Run(engine)
    for _ in range(num_steps):
        for _ in range(rng.choice([0, 0, 1, 2])):
            act = random_act(rng, engine)
            if act is not None:
                run.do(act)
        run.step()
    return run


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), num_steps=st.integers(1, 30), data=st.data())
def test_random_runs_go_back_and_on_to_the_same_tokens_and_blocks(seed, num_steps, data):
    run = random_run(seed, num_steps)
    for _ in range(2):
        step = data.draw(st.integers(0, num_steps - 1))
        run.go_back(step)
        run.repeat(step)


def test_the_same_objects_go_back():
    engine = make_engine()
    early = engine.add([1, 2, 3], params(6))
    engine.step()
    late = engine.add([4, 5], params(2))
    heard: list[Rewound] = []
    engine.on(Rewound, heard.append)
    engine.run_until_idle()
    assert early.output_token_ids == expected_output([1, 2, 3], 6)
    engine.rewind(1)
    assert engine.scheduler.get(early.id) is early
    assert early.num_output_tokens == 1
    assert engine.scheduler.waiting == (late,)
    engine.rewind(0)
    assert [(event.step, event.from_step) for event in heard] == [(1, 6), (0, 1)]
    assert late.status is Status.ABORTED
    assert str(late.finish_reason) == "abort"
    again = engine.add([4, 5], params(2))
    assert (again.id, again.seed) == (late.id, late.seed)
    engine.run_until_idle()
    assert early.output_token_ids == expected_output([1, 2, 3], 6)


def test_whoever_streams_a_request_that_vanishes_hears_its_end():
    engine = make_engine()
    engine.add([1], params(3))
    engine.step()
    pieces: list[Any] = []
    engine.add([2], params(3), sink=pieces.append)
    engine.step()
    engine.rewind(0)
    assert [piece.finish_reason for piece in pieces] == [None, "abort"]


def test_another_policy_runs_on_from_there():
    engine = make_engine(max_num_seqs=1)
    slow = engine.add([1, 2, 3], params(8), priority=1)
    urgent = engine.add([4, 5, 6], params(2), priority=0)
    engine.run_until_idle()
    assert slow.finished_s is not None
    assert urgent.finished_s is not None
    assert slow.finished_s < urgent.finished_s
    engine.rewind(0)
    engine.scheduler.policy = "priority"
    engine.run_until_idle()
    assert urgent.finished_s < slow.finished_s
    assert slow.output_token_ids == expected_output([1, 2, 3], 8)


def test_a_changed_parameter_is_a_part_of_the_past():
    engine = make_engine()
    request = engine.add([1, 2], params(3))
    engine.step()
    engine.change(request, params=replace(request.params, max_tokens=7))
    engine.run_until_idle()
    assert request.num_output_tokens == 7
    engine.rewind(1)
    assert request.max_tokens == 7  # it was changed before step 1
    engine.rewind(0)
    assert request.max_tokens == 3
    engine.run_until_idle()
    assert request.num_output_tokens == 3


def test_what_a_request_started_with_cannot_be_changed():
    engine = make_engine()
    request = engine.add([1, 2], params(3))
    with pytest.raises(InvalidParameter, match="logprobs is fixed once req-0 is in line"):
        engine.change(request, params=replace(request.params, logprobs=2))
    engine.run_until_idle()
    with pytest.raises(InvalidRequest, match="no unfinished request"):
        engine.change(request, priority=2)


def test_steps_out_of_reach_are_named():
    engine = make_engine()
    engine.add([1], params(2))
    engine.run_until_idle()
    with pytest.raises(EngineError, match="from step 0 to step 2, which is next"):
        engine.rewind(3)
    with pytest.raises(EngineError, match="out of reach"):
        engine.rewind(-1)
    with pytest.raises(TypeError, match="a step is an integer"):
        engine.rewind("1")  # type: ignore[arg-type]


def test_a_running_engine_does_not_go_back():
    engine = make_engine()
    engine.start()
    with pytest.raises(EngineIsRunning, match="engine_at"):
        engine.rewind(0)
    with engine.paused():
        engine.rewind(0)
    engine.close()


class Moody:
    """Answers by something that nobody wrote down."""

    mood = 1

    def rank(self, request: Any, view: Any) -> int:
        return self.mood * request.arrival_index


def test_a_policy_that_changes_its_mind_is_found_out_and_nothing_has_changed(monkeypatch):
    engine = make_engine(policy=Moody(), max_num_seqs=1)
    requests = [engine.add([i], params(3)) for i in range(3)]
    engine.run_until_idle()
    monkeypatch.setattr(Moody, "mood", -1)
    outputs = [request.output for request in requests]
    with pytest.raises(EngineError, match="step 0 comes out differently"):
        engine.rewind(5)
    assert [request.output for request in requests] == outputs
    assert engine.scheduler.next_step == 9


def test_a_policy_with_a_state_starts_anew():
    class Alternating:
        def __init__(self) -> None:
            self.count = 0

        def rank(self, request: Any, view: Any) -> int:
            self.count += 1
            return self.count % 3

    engine = make_engine(policy=Alternating(), max_num_seqs=2)
    requests = [engine.add([i, i], params(4)) for i in range(5)]
    engine.run_until_idle()
    order = sorted(requests, key=lambda request: request.last_token_s or 0.0)
    engine.rewind(2)
    engine.run_until_idle()
    assert sorted(requests, key=lambda request: request.last_token_s or 0.0) == order


def test_a_long_journal_begins_anew_when_nothing_is_unfinished(monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_TOKENS", 30)
    engine = make_engine(num_blocks=40, max_model_len=40)
    for i in range(6):
        engine.add([*range(10), i], params(4))
        engine.run_until_idle()
    assert engine.journal.first_step > 0
    with pytest.raises(EngineError, match=f"from step {engine.journal.first_step}"):
        engine.rewind(0)
    request = engine.add([*range(10), 5, 6, 7], params(3))
    engine.run_until_idle()
    assert request.num_cached_tokens == 8
    for step in range(engine.journal.first_step, engine.scheduler.next_step):
        engine.rewind(step)
        engine.run_until_idle()
        assert request.output_token_ids == expected_output([*range(10), 5, 6, 7], 3)
        assert request.num_cached_tokens == 8


def test_a_step_that_was_lost_is_a_part_of_the_past():
    engine = make_engine()
    first = engine.add([1, 2, 3, 4, 5], params(4))
    engine.step()
    engine.runner.fail_steps.add(1)  # type: ignore[attr-defined]
    engine.step()
    assert first.status is Status.FAILED
    second = engine.add([1, 2, 3, 4, 5], params(4))
    engine.run_until_idle()
    assert second.num_cached_tokens == 0
    engine.rewind(3)
    assert first.status is Status.FAILED
    engine.run_until_idle()
    assert second.output_token_ids == expected_output([1, 2, 3, 4, 5], 4)


def test_run_until_an_event_then_back_to_it():
    engine = make_engine(num_blocks=6, block_size=2, max_model_len=10)
    for i in range(3):
        engine.add([i, i + 1], params(6))
    report = engine.run_until(Preempted)
    assert report is not None
    engine.run_until_idle()
    engine.rewind(report.step)
    again = engine.step()
    assert again.plan == report.plan
    assert again.blocks_after == report.blocks_after


def test_what_follows_a_rewind_belongs_to_the_last_step_that_counts():
    engine = make_engine()
    engine.add([1, 2, 3], params(6))
    engine.run_until_idle()
    for _ in range(2):
        engine.rewind(3)
        assert engine.step_number == 2
    engine.rewind(0)
    assert engine.step_number == 0


def test_a_finished_request_that_is_taken_back_is_marked():
    engine = make_engine()
    kept = engine.add([1, 2, 3], params(1))
    engine.run_until_idle()
    step = engine.scheduler.next_step
    gone = engine.add([4, 5], params(1))
    engine.run_until_idle()
    assert gone.status is Status.FINISHED
    engine.rewind(step - 1)
    engine.rewind(0)
    assert gone.status is Status.ABORTED
    assert gone.is_taken_back
    assert not kept.is_taken_back


def test_the_time_that_going_back_takes_is_nobodys_wait(monkeypatch):
    engine = make_engine(max_num_seqs=1)
    engine.add([1, 2, 3], params(4))
    late = engine.add([4, 5, 6], params(2))
    engine.run_until_idle()
    first_token_s = late.first_token_s
    runner: Any = engine.runner
    restore = runner.restore

    def restore_slowly(restoration: Any) -> None:
        restore(restoration)
        runner.clock.advance(60.0)

    monkeypatch.setattr(runner, "restore", restore_slowly)
    engine.rewind(2)
    engine.run_until_idle()
    assert late.first_token_s == pytest.approx(first_token_s)
