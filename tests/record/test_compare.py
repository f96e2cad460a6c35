"""Two runs of one workload side by side: what changed for each request, and why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_engine, params
from toolkit.engine import StepPlan, StepResult
from toolkit.errors import InvalidParameter, UnlikeRuns
from toolkit.record import Record


def run(*, num_prompts: int = 4, length: int = 6, **settings: int) -> Record:
    engine = make_engine(recorder=Record(), **settings)
    for i in range(num_prompts):
        engine.add([i + 1] * length, params(5))
    engine.run_until_idle()
    record: Record = engine.record
    return record


def test_the_same_run_twice_has_no_difference():
    found = run(max_num_seqs=2).compare(run(max_num_seqs=2))
    assert (found.table["why"] == "as before").all()
    assert (found.table["e2e_s_difference"].abs() < 1e-9).all()
    assert found.changed.empty


def test_differences_are_after_minus_before_and_the_largest_comes_first():
    before, after = run(max_num_seqs=1), run(max_num_seqs=4)
    table = before.compare(after).table
    first = table.iloc[0]
    assert first["request_id"] == "req-3"
    assert first["e2e_s_difference"] == pytest.approx(first["e2e_s_after"] - first["e2e_s_before"])
    assert first["e2e_s_difference"] < 0
    assert table["e2e_s_difference"].abs().is_monotonic_decreasing


def test_why_counts_the_steps_that_were_waited_by_cause():
    before, after = run(max_num_seqs=4), run(max_num_seqs=1)
    table = before.compare(after).table.set_index("request_id")
    # Each before it computes its prompt and four more tokens: five steps.
    assert table.loc["req-1", "why"] == "waited 5 steps more: 5 for seqs"
    assert table.loc["req-1", "waited_steps_difference"] == 5
    assert table.loc["req-1", "waited_s_difference"] == pytest.approx(0.05)
    back = after.compare(before).table.set_index("request_id")
    assert back.loc["req-1", "why"] == "waited 5 steps less: 5 for seqs"


def test_steps_lost_to_preemption_are_told():
    before, after = run(num_blocks=16, length=10), run(num_blocks=7, length=10)
    found = before.compare(after)
    lost = found.table[found.table["num_preemptions_difference"] > 0]
    assert len(lost)
    assert lost["why"].str.contains("preempted for").all()


def test_runs_of_other_ids_are_paired_by_arrival():
    engine = make_engine(recorder=Record())
    engine.add([9], params(1))
    engine.run_until_idle()
    engine.clock.advance(1.0)
    with engine.record.during("later") as later:
        for i in range(4):
            engine.add([i + 1] * 6, params(5))
        engine.run_until_idle()
    table = run().compare(later).table.sort_values("request_id")
    assert list(table["other_id"]) == ["req-1", "req-2", "req-3", "req-4"]


def test_other_work_is_refused():
    with pytest.raises(UnlikeRuns, match="4 requests and the other 3"):
        run().compare(run(num_prompts=3))
    with pytest.raises(UnlikeRuns, match=r"num_prompt_tokens.*req-0 \(6\).*req-0 \(7\)"):
        run().compare(run(length=7))


def test_what_is_no_record_is_refused():
    with pytest.raises(InvalidParameter, match="NoneType"):
        Record().compare(None)  # type: ignore[arg-type]


def test_it_renders_as_text_and_as_a_table():
    found = run(max_num_seqs=4).compare(run(max_num_seqs=1))
    assert repr(found).startswith("4 requests: 0 faster, 3 slower, +")
    assert "waited 5 steps more: 5 for seqs" in found._repr_html_()


def test_it_can_be_drawn():
    import matplotlib

    matplotlib.use("Agg")
    axes = run(max_num_seqs=4).compare(run(max_num_seqs=1)).plot("ttft_s")
    assert len(axes.patches) == 4


def test_a_slower_run_of_the_same_schedule_says_where_the_time_went():
    def slowed(*, in_steps: float = 0.0, between: float = 0.0) -> Record:
        engine = make_engine(recorder=Record())
        engine.add([1, 2, 3], params(5))
        runner: Any = engine.runner
        run_step = runner.run

        def run_slowly(plan: StepPlan) -> StepResult:
            runner.clock.advance(in_steps)
            return run_step(plan)

        runner.run = run_slowly
        while engine.scheduler.has_work:
            engine.step()
            runner.clock.advance(between)
        record: Record = engine.record
        return record

    before = slowed()
    found = before.compare(slowed(in_steps=0.05))
    assert list(found.table["why"]) == ["same schedule, more time in the steps themselves"]
    assert found.changed.empty
    found = before.compare(slowed(between=0.05))
    assert list(found.table["why"]) == ["same schedule, more time between the steps"]
    found = slowed(between=0.05).compare(slowed(in_steps=0.0))
    assert list(found.table["why"]) == ["same schedule, less time between the steps"]
