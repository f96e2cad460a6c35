"""The gap between two steps counts while work stands still, and only then."""

from __future__ import annotations

from tests.builders import make_engine, params
from toolkit.record import Record
from toolkit.record.engine_counts import EngineCounts


def test_idle_time_is_no_gap_and_waiting_work_is_one() -> None:
    record = Record()
    engine = make_engine(recorder=record)
    counts = EngineCounts(engine)
    counts.attach()
    engine.add([1, 2, 3], params(2))
    engine.step()
    engine.clock.advance(0.5)  # a cell that computes while a request has tokens to go
    engine.step()
    engine.clock.advance(60)  # nobody wants anything
    engine.add([1, 2, 3], params(1))
    engine.clock.advance(0.25)  # the newcomer waits for its first step
    engine.step()
    assert record.steps["host_gap_s"].round(6).tolist() == [0.0, 0.5, 0.25]
    assert counts.host_gap_s.sum == 0.75


def test_a_pause_is_wanted_and_so_no_gap() -> None:
    engine = make_engine()
    counts = EngineCounts(engine)
    counts.attach()
    engine.add([1, 2, 3], params(3))
    engine.step()
    with engine.paused():
        engine.clock.advance(5)
        engine.add([1, 2, 3], params(3))
        engine.step()
        engine.clock.advance(1)
    engine.step()
    assert counts.host_gap_s.sum == 1.0
