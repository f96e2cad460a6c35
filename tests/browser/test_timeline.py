from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from tests.widgets.synthetic import SyntheticRun
from toolkit.widgets import Timeline


@pytest.fixture
def run() -> SyntheticRun:
    run = SyntheticRun(num_requests=20, num_steps=120)
    run.record.why = lambda name: SimpleNamespace(
        _repr_html_=lambda: f"<b>{name} waited for blocks</b>"
    )
    return run


@pytest.fixture
def shown(bare, run: SyntheticRun):
    """A timeline of a recorded run."""
    return bare(lambda: Timeline(run))


def row_at(index: int, x: int = 400) -> dict[str, int]:
    """A point in a row; 20 rows are 16 pixels high each."""
    return {"x": x, "y": index * 16 + 8}


def test_the_wheel_zooms_and_whole_comes_back(shown):
    before = shown.picture()
    shown.root.locator("canvas").hover(position=row_at(3))
    shown.page.mouse.wheel(0, -300)
    zoomed = shown.picture()
    assert zoomed != before
    shown.root.locator("button", has_text="Whole").click()
    shown.page.mouse.move(5, 690)
    assert shown.picture() == before


def test_dragging_pans_a_zoomed_view(shown):
    canvas = shown.root.locator("canvas")
    canvas.hover(position=row_at(3))
    shown.page.mouse.wheel(0, -400)
    shown.page.mouse.move(5, 690)
    before = shown.picture()
    box = canvas.bounding_box()
    shown.page.mouse.move(box["x"] + 500, box["y"] + 100)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + 300, box["y"] + 100, steps=4)
    shown.page.mouse.up()
    shown.page.mouse.move(5, 690)
    assert shown.picture() != before
    assert not [message for message in shown.sent if message["type"] == "why"]


def test_arrow_keys_go_through_steps_and_rows(shown):
    before = shown.picture()
    shown.root.locator("canvas").focus()
    shown.page.keyboard.press("ArrowRight")
    shown.page.keyboard.press("ArrowRight")
    shown.settle()
    tip = shown.root.locator(".tk-tip").inner_text()
    assert tip.startswith("step\t")
    assert "of 512" in tip
    assert shown.picture() != before
    shown.page.keyboard.press("ArrowDown")
    shown.settle()
    assert "req-0" in shown.root.locator(".tk-tip").inner_text()


def test_a_click_and_the_enter_key_pin_why(shown):
    shown.root.locator("canvas").click(position=row_at(4))
    shown.settle()
    assert shown.root.locator(".tk-why").inner_text() == "req-4 waited for blocks"
    shown.root.locator("canvas").focus()
    shown.page.keyboard.press("ArrowDown")
    shown.page.keyboard.press("Enter")
    shown.settle()
    assert shown.root.locator(".tk-why").inner_text() == "req-5 waited for blocks"


def test_a_brush_selects_what_it_touches(shown, run: SyntheticRun):
    canvas = shown.root.locator("canvas")
    box = canvas.bounding_box()
    before = shown.picture()
    shown.page.keyboard.down("Shift")
    shown.page.mouse.move(box["x"] + 120, box["y"] + 2 * 16 + 4)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + 880, box["y"] + 5 * 16 + 4, steps=4)
    shown.page.mouse.up()
    shown.page.keyboard.up("Shift")
    shown.page.mouse.move(5, 690)
    assert shown.picture() != before
    selection = shown.widget.selection
    assert list(selection["request_id"]) == ["req-2", "req-3", "req-4", "req-5"]
    assert "4 selected" in shown.root.inner_text()
    shown.page.keyboard.press("Escape")


def test_shift_and_the_down_key_select_too(shown):
    shown.root.locator("canvas").focus()
    shown.page.keyboard.press("ArrowDown")
    shown.page.keyboard.press("Shift+ArrowDown")
    shown.page.keyboard.press("Shift+ArrowDown")
    shown.settle()
    assert list(shown.widget.selection["request_id"]) == ["req-0", "req-1", "req-2"]


def test_rows_are_sorted_by_time_to_first_token_or_a_tag(shown, run: SyntheticRun):
    by_arrival = shown.picture()
    shown.root.locator("select").select_option("ttft")
    by_ttft = shown.picture()
    shown.root.locator("select").select_option("tenant")
    by_tenant = shown.picture()
    assert len({by_arrival, by_ttft, by_tenant}) == 3
    shown.root.locator("select").select_option("ttft")
    shown.settle()
    shown.root.locator("canvas").click(position=row_at(0))
    shown.settle()
    fastest = run.record.requests.sort_values("ttft_s")["request_id"].iloc[0]
    assert shown.root.locator(".tk-why").inner_text().startswith(f"{fastest} ")


def test_columns_are_seconds_or_steps(shown):
    over_seconds = shown.picture()
    shown.root.locator("button", has_text="steps").click()
    shown.page.mouse.move(5, 690)
    assert shown.picture() != over_seconds
    shown.root.locator("canvas").focus()
    shown.page.keyboard.press("s")
    shown.page.mouse.move(5, 690)
    assert shown.picture() == over_seconds


def test_a_selection_made_in_python_is_marked(shown):
    before = shown.picture()
    shown.widget.select(["req-3"])
    assert shown.picture() != before
    assert "1 selected" in shown.root.inner_text()


def test_a_record_of_nothing_says_so(bare):
    run = SyntheticRun(num_requests=3)
    run.record.requests = run.record.requests.head(0)
    run.record.steps = run.record.steps.head(0)
    shown = bare(lambda: Timeline(run))
    shown.settle()
    assert "0 requests, 0 steps" in shown.root.inner_text()


def test_two_thousand_requests_load_and_draw_in_three_seconds(bare):
    run = SyntheticRun(num_requests=2000, num_steps=3000)
    start_s = time.monotonic()
    shown = bare(lambda: Timeline(run))
    shown.page.wait_for_function(
        "() => document.querySelector('.tk').innerText.includes('2000 requests')"
    )
    took_s = time.monotonic() - start_s
    assert took_s < 3
    whole = shown.picture()
    shown.root.locator("button", has_text="Fit rows").click()
    shown.page.mouse.move(5, 690)
    assert shown.picture() != whole
