from __future__ import annotations

import time
from typing import Any

import pandas as pd
import pytest

from tests.widgets.synthetic import SyntheticRun
from toolkit.errors import InvalidParameter, ToolkitError
from toolkit.widgets import Timeline
from toolkit.widgets.palette import LIGHT, rgb
from toolkit.widgets.timeline_picture import timeline_pixels
from toolkit.widgets.timeline_rows import KINDS, lane_arrays


@pytest.fixture
def run() -> SyntheticRun:
    return SyntheticRun(num_requests=12, num_steps=80)


def test_a_page_gets_each_requests_spans(run: SyntheticRun, open_page: Any):
    frame = open_page(Timeline(run)).newest("all")
    meta, arrays = frame.meta, frame.arrays
    assert meta["request_ids"] == list(run.record.requests["request_id"])
    for index, request_id in enumerate(meta["request_ids"]):
        spans = run.record.spans([request_id])
        rows = slice(arrays["ends"][index - 1] if index else 0, arrays["ends"][index])
        assert arrays["start"][rows].tolist() == spans["start_s"].tolist()
        assert arrays["end"][rows].tolist() == spans["end_s"].tolist()
        names = [KINDS[kind].removeprefix("wait_") for kind in arrays["kind"][rows]]
        assert names == [c or k for k, c in zip(spans["kind"], spans["cause"], strict=True)]
    assert meta["tags"]["tenant"] == list(run.record.requests["tags.tenant"])
    assert arrays["step"].tolist() == run.record.steps["step"].tolist()[-len(arrays["step"]) :]
    used = run.record.steps["blocks_used"].tail(len(arrays["step"])) / 256 * 100
    assert arrays["kv_percent"] == pytest.approx(used.to_numpy(), rel=1e-5)


def test_a_brush_returns_the_requests_as_a_table(run: SyntheticRun, open_page: Any):
    timeline = Timeline(run)
    page = open_page(timeline)
    assert timeline.selection.empty
    page.say("select", request_ids=["req-2", "req-5"])
    assert list(timeline.selection["request_id"]) == ["req-2", "req-5"]
    assert list(timeline.selection.columns) == list(run.record.requests.columns)


def test_a_selection_from_python_is_marked_in_the_page(run: SyntheticRun, open_page: Any):
    timeline = Timeline(run)
    page = open_page(timeline)
    timeline.select(["req-1"])
    assert page.wait("selection").meta == {"request_ids": ["req-1"]}
    assert list(timeline.selection["request_id"]) == ["req-1"]


def test_only_the_newest_requests_are_sent(run: SyntheticRun, open_page: Any):
    frame = open_page(Timeline(run, max_requests=5)).newest("all")
    assert frame.meta["request_ids"] == [f"req-{i}" for i in range(7, 12)]
    assert frame.meta["num_requests"] == 12


def test_a_record_without_chunks_says_so_in_the_page(
    run: SyntheticRun, open_page: Any, monkeypatch: pytest.MonkeyPatch
):
    def refuse(request_ids: Any = None) -> Any:
        raise InvalidParameter("this record keeps no chunks: set record.level='tokens'")

    monkeypatch.setattr(run.record, "spans", refuse)
    meta = open_page(Timeline(run)).newest("all").meta
    assert meta["note"].startswith("this record keeps no chunks")
    assert meta["request_ids"] == []
    assert "keeps no chunks" in Timeline(run).to_html()


def test_an_unknown_x_axis_is_refused(run: SyntheticRun):
    with pytest.raises(ToolkitError, match="'seconds' or 'steps'"):
        Timeline(run, x="hours")


@pytest.mark.parametrize("sort", ["arrival", "ttft", "tenant"])
def test_pictures_show_the_rows_in_any_order(run: SyntheticRun, sort: str):
    timeline = Timeline(run, sort=sort)
    assert timeline.to_png().startswith(b"\x89PNG")
    assert len(timeline._ordered()) == 12


def test_an_order_that_no_request_has_is_refused(run: SyntheticRun):
    with pytest.raises(InvalidParameter, match=r"'nothing': no request .* 'tenant'"):
        Timeline(run, sort="nothing")


def test_pictures_over_steps_leave_out_the_time_between_steps(run: SyntheticRun):
    html = Timeline(run, x="steps").static_html()
    assert " step</span>" in html
    assert "tokenize" not in html
    assert ">req-3</div>" in html
    spans = Timeline(run, x="steps")._spans(["req-3"])
    assert set(spans["kind"]).isdisjoint({"tokenize", "emit"})
    assert (spans["end_s"] - spans["start_s"] >= 1).all()


def test_a_record_of_nothing_says_so():
    run = SyntheticRun(num_requests=3)
    run.record.requests = run.record.requests.head(0)
    assert "No request yet" in Timeline(run).to_html()


def test_the_picture_of_a_cell_is_made_quickly_and_small():
    timeline = Timeline(SyntheticRun(num_requests=2000, num_steps=1000))
    start_s = time.process_time()
    html = timeline.static_html()
    assert time.process_time() - start_s < 1
    assert len(html) < 40_000
    assert "200 of 2000 requests by arrival" in html


def test_the_picture_of_a_cell_names_its_rows_and_has_an_axis():
    run = SyntheticRun(num_requests=3)
    html = Timeline(run).static_html()
    assert all(f">{name}</div>" in html for name in run.record.requests["request_id"])
    assert "KV in %" in html
    assert html.count(" s</span>") == 2  # at both ends of the axis


def test_pixels_stand_where_the_spans_are():
    spans = pd.DataFrame(
        {
            "request_id": ["a", "b"],
            "kind": ["decode", "wait"],
            "cause": ["", "blocks"],
            "start_s": [0.0, 5.0],
            "end_s": [5.0, 10.0],
        }
    )
    lanes = lane_arrays(SyntheticRun(num_requests=1).record.steps.head(0), 10)
    pixels = timeline_pixels(["a", "b"], spans, lanes, low_s=0.0, high_s=10.0)
    assert tuple(pixels[3, 100]) == rgb(LIGHT["decode"])
    assert tuple(pixels[3, 800]) == (255, 255, 255)
    middle = 14 + 6
    assert tuple(pixels[middle, 800]) == rgb(LIGHT["wait_blocks"])
    assert tuple(pixels[middle, 100]) == (255, 255, 255)
    assert tuple(pixels[14, 800]) == (255, 255, 255), "who waits is drawn thin"
