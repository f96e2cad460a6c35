"""BlockMap and Timeline on real records: live, as the engine steps, and loaded from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import make_engine, params
from toolkit.engine import Engine
from toolkit.record import Record
from toolkit.widgets import BlockMap, Timeline
from toolkit.widgets.block_cells import cells_of_frame, cells_of_snapshot


def crowded(**kwargs: Any) -> Engine:
    """An engine with too few blocks for its requests, some of which share a prefix."""
    engine = make_engine(num_blocks=16, max_num_seqs=5, recorder=Record(level="blocks"), **kwargs)
    for start in (1, 1, 5, 1, 9, 5):
        engine.add(list(range(start, start + 14)), params(max_tokens=10), tags={"tenant": start})
    return engine


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(10, 30))
@settings(max_examples=25)
def test_the_record_and_the_engine_agree_on_every_block(starts: list[int], num_blocks: int):
    engine = make_engine(num_blocks=num_blocks, recorder=Record(level="blocks"))
    for start in starts:
        engine.add(list(range(start, start + 11)), params(max_tokens=6))
    while engine.scheduler.has_work:
        step = engine.step().step
        live = cells_of_snapshot(engine.block_snapshot())
        recorded = cells_of_frame(engine.record.blocks_at(step), step=step, block_size=4)
        assert (recorded.states == live.states).all()
        assert (recorded.ref_counts == live.ref_counts).all()
        held = live.states == 2
        assert (recorded.num_filled[held] == live.num_filled[held]).all()
        for block in range(num_blocks):
            assert owners(recorded, block) == owners(live, block)


def owners(cells: Any, block: int) -> set[str]:
    start = cells.holder_ends[block - 1] if block else 0
    return {cells.owners[i] for i in cells.holders[start : cells.holder_ends[block]]}


def test_a_live_engine_that_records_blocks_can_be_stepped_through(open_page: Any):
    engine = crowded()
    engine.run_until(lambda report: report.step == 9)
    page = open_page(BlockMap(engine))
    assert page.newest("cells").meta["note"] == ""
    page.say("step", step=4)
    frame = page.wait("cells")
    assert frame.meta["step"] == 4
    engine.step()
    longer = page.wait("cells")
    assert (longer.meta["step"], longer.meta["newest"]) == (4, 10)
    assert (longer.arrays["state"] == frame.arrays["state"]).all()


def test_a_saved_record_shows_the_same_blocks_and_rows(tmp_path: Path):
    engine = crowded()
    engine.run_until_idle()
    path = engine.record.save(tmp_path / "run.zip")
    for step in (0, 5, 9):
        pd.testing.assert_frame_equal(
            BlockMap(path, step=step).data, BlockMap(engine.record, step=step).data
        )
    assert not BlockMap(path).is_live
    pd.testing.assert_frame_equal(Timeline(path).data, Timeline(engine).data)


def test_a_timeline_follows_a_live_engine(open_page: Any):
    engine = crowded()
    page = open_page(Timeline(engine))
    known: dict[str, float] = {}
    num_steps = len(page.newest("all").arrays["step"])
    while engine.scheduler.has_work:
        engine.run_until(lambda report: report.step % 5 == 4)
        frame = page.wait("more")
        num_steps += len(frame.arrays["step"])
        ends = frame.arrays["ends"]
        for index, request_id in enumerate(frame.meta["request_ids"]):
            if ends[index] > (ends[index - 1] if index else 0):
                known[request_id] = frame.arrays["end"][ends[index] - 1]
    spans = engine.record.spans()
    final = spans.groupby("request_id")["end_s"].max()
    assert known == pytest.approx(final.to_dict())
    assert num_steps == engine.step_number + 1


def test_a_click_explains_a_real_request(open_page: Any):
    engine = crowded()
    engine.run_until_idle()
    page = open_page(Timeline(engine))
    page.say("why", request_id="req-3")
    answer = page.wait("why").meta
    assert answer["request_id"] == "req-3"
    assert "req-3" in answer["html"]


def test_pictures_of_a_real_run(tmp_path: Path):
    engine = crowded()
    engine.run_until_idle()
    assert Timeline(engine, sort="tenant").to_png().startswith(b"\x89PNG")
    assert "After step 3: 16 blocks" in BlockMap(engine, step=3).to_html()
