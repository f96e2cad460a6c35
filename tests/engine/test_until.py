"""Conditions on which a run stops."""

from __future__ import annotations

from tests.builders import make_engine, params
from toolkit.engine import until


def test_a_run_stops_just_before_a_step():
    engine = make_engine()
    engine.add([1, 2], params(9))
    engine.run_until(until.step(4))
    assert engine.scheduler.next_step == 4


def test_a_run_stops_after_somebodys_first_token():
    engine = make_engine(max_num_seqs=1)
    first, second = engine.add([1], params(3)), engine.add([2], params(3))
    engine.run_until(until.first_token(second))
    assert second.num_output_tokens == 1
    assert first.is_finished


def test_a_run_stops_when_somebody_ends():
    engine = make_engine()
    first = engine.add([1], params(3))
    engine.add([2], params(6))
    engine.run_until(until.finished(first.id))
    assert first.is_finished
    assert engine.scheduler.has_work


def test_a_run_stops_when_blocks_are_taken():
    engine = make_engine(num_blocks=6, block_size=2, max_model_len=10)
    for i in range(3):
        engine.add([i, i + 1], params(6))
    report = engine.run_until(until.preempted())
    assert report is not None
    (name, *_) = report.plan.preempted_ids
    engine.rewind(0)
    again = engine.run_until(until.preempted(name))
    assert again is not None
    assert again.step == report.step


def test_a_run_stops_at_an_eviction():
    engine = make_engine(num_blocks=4, block_size=2, max_model_len=8)
    for i in range(3):
        engine.add([i, i + 1, i + 2], params(3))
        engine.run_until_idle()
    engine.add([9, 9, 9], params(4))
    report = engine.run_until(until.evicted())
    assert report is not None
    assert report.num_evicted > 0
