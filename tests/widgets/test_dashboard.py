"""The dashboard says what the record says: live, recorded, paused, marked, loaded."""

from __future__ import annotations

import gc
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from tests.builders import make_engine, params
from toolkit.engine import Engine
from toolkit.errors import InvalidConfig
from toolkit.record import Record
from toolkit.widgets import Dashboard
from toolkit.widgets.fallback import new_figure, small_png
from toolkit.widgets.lanes import LANES
from toolkit.widgets.load_switch import LoadSwitch


@pytest.fixture
def engine() -> Engine:
    """An engine that has run three requests, on a virtual clock."""
    engine = make_engine(recorder=Record())
    for length in (5, 9, 3):
        engine.add(list(range(1, length + 1)), params(6))
    engine.run_until_idle()
    return engine


def lanes_of(frame: Any) -> dict[str, np.ndarray]:
    return dict(zip(frame.meta["lanes"], frame.arrays["lanes"], strict=True))


def test_a_page_gets_the_lanes_of_the_record(engine: Engine, open_page: Any) -> None:
    dashboard = Dashboard(engine, window_s=1000.0)
    page = open_page(dashboard)
    frame = page.newest("lanes")
    lanes = lanes_of(frame)
    assert set(lanes) == set(LANES)
    total = lanes["output_tokens_per_s"].sum() * frame.meta["bin_s"]
    assert total == pytest.approx(len(engine.record.tokens)) == 18
    assert lanes["num_running"].max() == engine.record.steps.num_running.max()
    ttft_s = engine.record.requests.ttft_s
    assert np.nanmax(lanes["ttft_p99_s"]) == pytest.approx(ttft_s.max(), rel=0.05)
    last = engine.record.steps.iloc[-1]
    assert lanes["kv_held"][-1] == pytest.approx(last.blocks_used / 16)
    assert lanes["kv_cached"][-1] == pytest.approx(last.blocks_cached / 16)


def test_the_table_and_a_saved_record_say_the_same(engine: Engine, tmp_path: Path) -> None:
    path = engine.record.save(tmp_path / "run.zip")
    live, saved = Dashboard(engine, window_s=1000.0), Dashboard(str(path))
    assert live.is_live
    assert not saved.is_live
    a, b = live.data.set_index("time_s"), saved.data.set_index("time_s")
    both = a.index.intersection(b.index)
    assert len(both) == len(b) > 0
    np.testing.assert_allclose(a.loc[both], b.loc[both], rtol=1e-9)


def test_new_rows_come_with_the_next_frame(engine: Engine, open_page: Any) -> None:
    dashboard = Dashboard(engine, window_s=1000.0)
    page = open_page(dashboard)
    before = lanes_of(page.newest("lanes"))["output_tokens_per_s"].sum()
    engine.add([1, 2, 3], params(4))
    engine.run_until_idle()
    dashboard.refresh()
    page.read()
    after = lanes_of(page.newest("lanes"))["output_tokens_per_s"].sum()
    assert (after - before) * 0.25 == pytest.approx(4)


def test_a_live_view_follows_by_itself_and_rests_while_paused(
    engine: Engine, open_page: Any
) -> None:
    dashboard = Dashboard(engine)
    page = open_page(dashboard)
    page.wait("lanes")
    page.say("pause")
    assert not dashboard.is_live
    page.until("lanes", lambda frame: frame.meta["is_paused"])
    rows = len(dashboard._reader.lanes._samples["itl"])
    engine.add([1, 2, 3], params(4))
    engine.run_until_idle()
    assert len(dashboard._reader.lanes._samples["itl"]) == rows  # nothing was read
    page.say("resume")
    assert dashboard.is_live
    page.wait("lanes")


def test_a_brush_returns_the_requests_that_lived_then(engine: Engine, open_page: Any) -> None:
    dashboard = Dashboard(engine)
    page = open_page(dashboard)
    requests = engine.record.requests
    assert len(dashboard.selection) == len(requests)
    first_end_s = float(requests.finished_s.min())
    page.say("select", a_s=float(requests.finished_s.max()) + 1, b_s=first_end_s + 1e-9)
    alive = requests[requests.finished_s >= first_end_s + 1e-9]
    assert list(dashboard.selection.request_id) == list(alive.request_id)
    page.until("selection", lambda frame: frame.meta.get("num_requests") == len(alive))
    page.say("clear")
    assert len(dashboard.selection) == len(requests)


def test_an_unfinished_request_lives_on_in_any_later_selection() -> None:
    engine = make_engine(recorder=Record())
    engine.add([1, 2, 3], params(8))
    engine.step()
    assert len(Dashboard(engine).select(1e6, 2e6)) == 1


def test_a_snapshot_is_kept_when_the_button_is_pressed(engine: Engine, open_page: Any) -> None:
    dashboard = Dashboard(engine)
    page = open_page(dashboard)
    assert page.newest("lanes").meta["num_snapshots"] == 0
    page.say("snapshot")
    assert list(dashboard.snapshots[0].columns) == ["time_s", *LANES]
    page.until("lanes", lambda frame: frame.meta["num_snapshots"] == 1)


def test_a_load_is_started_and_stopped_from_the_page(engine: Engine, open_page: Any) -> None:
    started = threading.Event()

    def load(stop: threading.Event) -> None:
        started.set()
        stop.wait()

    dashboard = Dashboard(engine, load=load)
    page = open_page(dashboard)
    assert page.newest("lanes").meta["load"]["is_on"] is False
    page.say("load", on=True)
    assert started.wait(5)
    dashboard.refresh()
    page.read()
    assert page.newest("lanes").meta["load"]["is_on"] is True
    dashboard.close()
    assert not dashboard._switch.is_on  # type: ignore[union-attr]


def test_what_a_load_raises_is_said() -> None:
    def load(stop: threading.Event) -> None:
        raise RuntimeError("no such model")

    switch = LoadSwitch(load)
    switch.on()
    switch.off()
    assert switch.state()["error"] == "RuntimeError: no such model"


def test_without_a_page_it_is_a_picture(engine: Engine, tmp_path: Path) -> None:
    dashboard = Dashboard(engine, window_s=1000.0)
    dashboard.select(0, 1)
    assert dashboard.to_png(tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    html = dashboard.to_html(tmp_path / "d.html").read_text()
    assert "<img" in html
    assert "http" not in html
    assert len(repr(dashboard)) < 300


def test_an_engine_that_has_done_nothing_yet_is_shown_too(open_page: Any) -> None:
    dashboard = Dashboard(make_engine(recorder=Record()))
    assert open_page(dashboard).newest("lanes").meta["is_live"]
    assert dashboard.to_png().startswith(b"\x89PNG")


def test_what_records_nothing_is_refused() -> None:
    with pytest.raises(InvalidConfig):
        Dashboard(object())
    with pytest.raises(InvalidConfig, match="records nothing"):
        Dashboard(make_engine())


def test_saved_state_is_small(engine: Engine) -> None:
    dashboard = Dashboard(engine, window_s=1000.0)
    dashboard._repr_mimebundle_()
    assert sum(len(str(value)) for value in dashboard.get_state().values()) < 100_000


@pytest.mark.slow
def test_a_busy_minute_is_saved_with_its_picture(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    lanes = {name: random.random(240) / 2 for name in LANES}  # nothing compresses worse than noise
    busy = pd.DataFrame({"time_s": np.arange(240) / 4, **lanes})
    dashboard = Dashboard(engine)
    monkeypatch.setattr(dashboard, "snapshot", lambda: busy)
    dashboard._repr_mimebundle_()
    assert "<img" in dashboard._fallback
    assert sum(len(str(value)) for value in dashboard.get_state().values()) < 100_000


def test_a_picture_in_few_colours_keeps_the_flat_ones() -> None:
    figure = new_figure(2, 1)
    figure.patches.append(
        Rectangle((0.5, 0), 0.5, 1, color="#2f6fde", transform=figure.transFigure)
    )
    pixels = imread(BytesIO(small_png(figure)))
    assert pixels.shape[:2] == (80, 160)
    np.testing.assert_allclose(255 * pixels[40, 120, :3], (0x2F, 0x6F, 0xDE), atol=0.5)
    np.testing.assert_allclose(pixels[40, 40, :3], 1)


def test_what_is_refused_leaves_nothing_to_be_complained_about(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises(InvalidConfig):
        Dashboard(3)
    gc.collect()
    assert not complaints


def test_a_long_record_gets_longer_bins(tmp_path: Path) -> None:
    engine = make_engine(recorder=Record())
    engine.add([1, 2, 3], params(2))
    engine.run_until_idle()
    engine.clock.advance(36_000.0)  # type: ignore[attr-defined]
    engine.add([1, 2, 3], params(2))
    engine.run_until_idle()
    dashboard = Dashboard(str(engine.record.save(tmp_path / "long.zip")))
    assert len(dashboard.data) <= 14_400
    bin_s = dashboard._reader.lanes.bin_s
    assert dashboard.data.output_tokens_per_s.sum() * bin_s == pytest.approx(4)
