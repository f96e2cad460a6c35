"""The widgets of a live server in a browser: what is clicked, dragged and typed changes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.bare import BarePage
from tests.builders import make_engine, params
from tests.widgets.test_server_panel import PretendedServer
from toolkit.engine import Engine
from toolkit.record import Record
from toolkit.widgets import Dashboard, ServerPanel, Waterfall

Bare = Callable[..., BarePage]


@pytest.fixture
def engine() -> Engine:
    engine = make_engine(recorder=Record(), max_num_seqs=2)
    for number in range(12):
        engine.add([number, *range(5)], params(6))
        for _ in range(3):
            engine.step()
        engine.clock.advance(0.4)  # type: ignore[attr-defined]
    engine.run_until_idle()
    return engine


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_cursor_goes_through_all_lanes_of_the_dashboard(
    bare: Bare, engine: Engine, theme: str
) -> None:
    page = bare(lambda: Dashboard(engine.record.freeze()), theme=theme)
    before = page.picture()
    readout = page.root.locator("[data-lane=num_running]")
    page.page.locator("canvas").hover(position={"x": 120, "y": 200})
    page.settle()
    at_first = (readout.inner_text(), page.root.locator(".tk-status").inner_text())
    assert page.picture() != before
    page.page.locator("canvas").hover(position={"x": 500, "y": 200})
    assert (readout.inner_text(), page.root.locator(".tk-status").inner_text()) != at_first


def test_dragging_marks_requests_and_escape_clears_them(bare: Bare, engine: Engine) -> None:
    page = bare(lambda: Dashboard(engine.record.freeze()))
    mouse, box = page.page.mouse, page.page.locator("canvas").bounding_box()
    mouse.move(box["x"] + 100, box["y"] + 50)
    mouse.down()
    mouse.move(box["x"] + 300, box["y"] + 50)
    mouse.up()
    page.settle()
    chosen = page.widget.selection
    assert 0 < len(chosen) < 12
    assert f"{len(chosen)} requests" in page.root.locator(".tk-selection").inner_text()
    page.page.keyboard.press("Escape")
    page.settle()
    assert len(page.widget.selection) == 12
    page.page.keyboard.press("ArrowLeft")
    page.page.keyboard.press("Shift+ArrowLeft")
    page.settle()
    assert len(page.widget.selection) < 12


def test_the_slider_moves_through_a_recorded_run(bare: Bare, engine: Engine) -> None:
    page = bare(lambda: Dashboard(engine.record.freeze()), width=700)
    slider = page.root.locator("input[type=range]")
    assert slider.is_disabled()  # all of it is shown
    page.root.locator("select").select_option("10")
    whole = page.picture()
    if slider.is_enabled():  # the run is longer than ten seconds
        slider.fill("0")
        assert page.picture() != whole


def test_pause_load_and_snapshot_are_buttons(bare: Bare, engine: Engine) -> None:
    started = threading.Event()

    def load(stop: threading.Event) -> None:
        started.set()
        stop.wait()

    page = bare(lambda: Dashboard(engine, load=load))
    page.root.get_by_role("button", name="Start load").click()
    page.settle()
    assert started.wait(5)
    page.root.get_by_role("button", name="Stop load").click()
    page.root.get_by_role("button", name="Snapshot").click()
    page.root.get_by_role("button", name="Pause").click()
    page.settle(0.5)
    assert not page.widget._switch.is_on
    assert len(page.widget.snapshots) == 1
    assert page.root.get_by_role("button", name="Resume").is_visible()
    page.root.locator("canvas").focus()
    page.page.keyboard.press(" ")
    page.settle(0.5)
    assert page.root.get_by_role("button", name="Pause").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_panel_shows_code_to_copy_and_stops_at_the_second_click(bare: Bare, theme: str) -> None:
    server = PretendedServer()
    server.may_stop.set()
    page = bare(lambda: ServerPanel(server), theme=theme)
    assert "curl http://127.0.0.1:8000" in page.root.locator(".tk-code").inner_text()
    page.root.get_by_role("tab", name="openai").click()
    assert "from openai import OpenAI" in page.root.locator(".tk-code").inner_text()
    page.root.get_by_role("button", name="Copy").nth(1).click()
    page.root.get_by_role("button", name="Copied").wait_for()
    page.root.get_by_role("button", name="Stop").click()
    page.settle()
    assert server.is_running
    page.root.get_by_role("button", name="Click again").click()
    page.settle(1.0)
    page.widget.refresh()
    page.settle()
    assert not server.is_running
    assert page.root.locator("[data-fact=state]").inner_text() == "stopped"
    assert not page.root.locator(".tk-stop").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_waterfall_tells_its_spans_and_goes_to_the_neighbours(
    bare: Bare, engine: Engine, theme: str
) -> None:
    page = bare(lambda: Waterfall(engine.record.freeze()), theme=theme)
    before, last = page.picture(), page.widget.request_id
    canvas = page.page.locator("canvas")
    box = canvas.bounding_box()
    tip = page.root.locator(".tk-tip")
    for x in range(110, int(box["width"]), 6):
        canvas.hover(position={"x": x, "y": box["height"] - 40})
        if tip.is_visible():
            break
    assert "budget" in tip.inner_text()
    canvas.focus()
    page.page.keyboard.press("ArrowLeft")
    assert page.picture() != before
    assert page.widget.request_id != last
    whole = page.picture()
    page.page.keyboard.press("f")
    assert page.picture() != whole
    page.root.get_by_role("button", name="▶").click()
    page.settle()
    assert page.widget.request_id == last


@pytest.mark.slow  # a JupyterLab
def test_three_cells_lead_to_a_live_dashboard(lab: Callable[..., Any]) -> None:
    """The newcomer's path: a model, a server, its dashboard under load."""
    notebook = lab(
        [
            "from toolkit import LLM, serve\nllm = LLM(max_num_seqs=4)",
            "server = serve(llm, port=0)\nserver",
            "dashboard = server.dashboard()\ndashboard.start_load()\ndashboard",
        ]
    )
    notebook.run_all()
    panel, dashboard = notebook.widget(0), notebook.widget(1)
    panel.get_by_role("tab", name="curl").wait_for()
    rate = dashboard.locator("[data-lane=output_tokens_per_s]")
    notebook.page.wait_for_function(
        "(node) => Number(node.textContent.replace(',', '')) > 0",
        arg=rate.element_handle(),
        timeout=30_000,
    )
    notebook.page.wait_for_function(
        "(node) => /^[1-9]/.test(node.textContent)",
        arg=panel.locator("[data-fact=requests]").element_handle(),
        timeout=30_000,
    )
    dashboard.get_by_role("button", name="Stop load").click()
    dashboard.get_by_role("button", name="Start load").wait_for()
    notebook.save()
    notebook.page.reload()
    notebook.wait_open()
    notebook.widget(1).locator("canvas").wait_for()
    notebook.run("server.stop(); llm.close(); print('closed')")
    assert "closed" in notebook.output()
