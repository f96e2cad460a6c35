"""What a step says of itself, and what a reader on another thread sees."""

from __future__ import annotations

import dataclasses

import pytest

from tests.builders import make_engine, params
from tests.engine.letters import Letters
from toolkit.beam_search_params import BeamSearchParams
from toolkit.engine import Engine, StepReport
from toolkit.engine.events import StepFinished
from toolkit.text import SpelledToken


@pytest.fixture
def engine() -> Engine:
    return make_engine(text=Letters(), num_blocks=5, block_size=2, max_num_batched_tokens=5)


def test_a_report_prints_what_ran_and_why(engine: Engine):
    engine.add("ABCDEFG", params(3))
    first, second, third = engine.step(), engine.step(), engine.step()
    assert "req-0" in repr(first)
    assert "tokens 0-4" in repr(first)
    assert "a part of its known tokens" in repr(first)
    assert "up to its last known token" in repr(second)
    assert "its newest token" in repr(third)
    assert "blocks used 0 -> 3, cached 0 -> 0, empty 5 -> 2" in repr(first)


def test_a_report_names_what_waited_and_for_what(engine: Engine):
    engine.add("ABCDE", params(3))
    engine.add("BBBBB", params(3))
    engine.step()
    report = engine.step()
    assert report.waiting == (("req-1", "blocks"),)
    (line,) = [line for line in repr(report).splitlines() if "req-1" in line]
    assert "blocks" in line
    assert "limited by blocks" in report.summary()


def test_a_report_names_ten_of_the_line_in_its_order_and_counts_the_rest():
    engine = make_engine(max_num_seqs=2, policy="priority")
    for index in range(16):
        engine.add([index, 7], params(3), priority=-index)
    report = engine.step()
    waiting = [request.id for request in engine.scheduler.waiting]
    assert report.num_waiting == len(waiting) == 14
    *named, more = repr(report).splitlines()[-11:]
    assert [line.split()[0] for line in named] == waiting[:10]
    assert more.split() == ["and", "4", "more", "wait"]
    assert "and 4 more" in report._repr_html_()
    engine.run_until(lambda report: report.num_waiting == 2)
    last = engine.step()
    assert "more" not in repr(last)
    assert repr(last).count("waits: ") == last.num_waiting


def test_a_report_names_the_preempted(engine: Engine):
    for index in range(3):
        engine.add([index, 7, 9], params(6))
    reports = []
    while engine.scheduler.has_work:
        reports.append(engine.step())
    told = [report for report in reports if report.plan.preempted_ids]
    assert told
    for report in told:
        (victim, for_whom), *_ = report.preempted
        assert victim == report.plan.preempted_ids[0]
        assert f"{victim:<12} preempted for {for_whom}" in repr(report)
        assert f"preempted for {for_whom}" in report._repr_html_()


def test_a_report_draws_its_budget_and_its_blocks(engine: Engine):
    engine.add("ABCDE", params(3))
    engine.add("BBBBB", params(3))
    engine.step()
    html = engine.step()._repr_html_()
    assert 'aria-label="blocks before: 3 used, 0 cached, 2 empty"' in html
    assert "0 of prompts, 1 newest of 5" in html
    assert "waits for free blocks" in html
    assert "color:inherit" in html


def test_a_reports_html_escapes_text():
    engine = make_engine()

    class Script(Letters):
        def output_text(self, prompt_token_ids, params):
            text = super().output_text(prompt_token_ids, params)
            text._spelling.push = lambda token_id: [SpelledToken(token_id, b"<script>")]
            return text

    engine = make_engine(text=Script())
    engine.add("AB", params(1))
    html = engine.step()._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_report_counts_blocks_and_requests(engine: Engine):
    engine.add("ABC", params(3))
    engine.add("BBC", params(3))
    report = engine.step()
    assert (report.num_running, report.num_waiting) == (2, 0)
    assert report.blocks_before == (0, 0, 5)
    assert sum(report.blocks_after) == 5
    while engine.scheduler.has_work:
        report = engine.step()
        assert sum(report.blocks_after) == 5
    assert report.blocks_after.used == 0


def test_a_reports_times_lie_on_the_engines_clock(engine: Engine):
    engine.clock.advance(3.0)
    engine.add("AB", params(1))
    report = engine.step()
    assert report.start_s == 3.0
    assert report.duration_s == pytest.approx(0.01)


def test_an_idle_step_is_empty_and_harmless(engine: Engine):
    report = engine.step()
    assert isinstance(report, StepReport)
    assert report.plan.is_empty
    assert report.plan.limited_by == "none"
    assert report.updates == ()


def test_a_snapshot_is_frozen_and_complete(engine: Engine):
    engine.add("ABC", params(3), priority=4)
    engine.add("BBCDE", params(3))
    engine.step()
    snapshot = engine.snapshot()
    running, waiting = snapshot.running, snapshot.waiting
    assert [request.request_id for request in (*running, *waiting)] == ["req-0", "req-1"]
    assert running[0].priority == 4
    assert running[0].num_output_tokens == 1
    assert running[0].block_ids == tuple(engine.cache.table("req-0"))
    assert snapshot.policy == "fcfs"
    before = dataclasses.asdict(snapshot)
    engine.run_until_idle()
    assert dataclasses.asdict(snapshot) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.step = 7  # type: ignore[misc]


def test_an_engine_prints_its_state(engine: Engine):
    assert repr(engine).startswith("Engine(idle, step 0: 0 running, 0 waiting")
    engine.add("AB", params(1))
    assert "1 waiting" in repr(engine)
    engine.close()
    assert repr(engine).startswith("Engine(closed")


def test_a_report_says_all_that_is_known_of_each_new_token():
    engine = make_engine()
    engine.add([1, 2, 3], params(2))
    engine.add([1, 2, 3], BeamSearchParams(beam_width=2, max_tokens=2))
    updates = []
    engine.on(StepFinished, lambda event: updates.extend(event.report.updates))
    engine.run_until_idle()
    assert len(updates) == 2 + 2
    for update in updates:
        assert tuple(token.token_id for token in update.tokens) == update.token_ids
        assert update.tokens
