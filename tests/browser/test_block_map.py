from __future__ import annotations

import pytest

from tests.builders import make_engine, params
from tests.widgets.synthetic import SyntheticRun
from toolkit.record import Record
from toolkit.widgets import BlockMap


@pytest.fixture
def shown(bare):
    """A map of a recorded run."""
    return bare(lambda: BlockMap(SyntheticRun(num_requests=30, num_steps=60)))


def caption(shown) -> str:
    return shown.root.locator(".tk-number").first.inner_text()


def test_the_slider_goes_to_another_step(shown):
    before = shown.picture()
    assert caption(shown).startswith("After step 59 of 59: ")
    shown.root.locator("input[type=range]").fill("12")
    assert shown.picture() != before
    assert caption(shown).startswith("After step 12 of 59: ")


def test_the_buttons_and_the_arrow_keys_step(shown):
    first = shown.picture()
    shown.root.locator("button", has_text="◀").click()
    second = shown.picture()
    assert caption(shown).startswith("After step 58 ")
    shown.root.locator("canvas").focus()
    shown.page.keyboard.press("ArrowLeft")
    shown.settle()
    assert caption(shown).startswith("After step 57 ")
    shown.page.keyboard.press("PageUp")
    shown.settle()
    assert caption(shown).startswith("After step 47 ")
    shown.page.keyboard.press("End")
    assert shown.picture() == first != second
    assert shown.widget.step == 59


def test_hovering_tells_about_a_block_and_its_past(shown):
    tip = shown.root.locator(".tk-tip")
    assert not tip.is_visible()
    before = shown.picture()
    shown.root.locator("canvas").hover(position={"x": 9, "y": 9})
    shown.settle(0.4)
    assert tip.is_visible()
    frame = shown.widget.data
    assert f"0, {frame['state'][0]}" in tip.inner_text()
    assert "history" in tip.inner_text()
    assert "new by req-1: step 0 to step 5, finished" in tip.inner_text()
    assert shown.picture() != before, "the block under the pointer is outlined"
    shown.page.mouse.move(5, 650)
    assert shown.picture() == before
    assert not tip.is_visible()


def test_shift_and_arrows_move_from_block_to_block(shown):
    shown.root.locator("canvas").focus()
    for _ in range(3):
        shown.page.keyboard.press("Shift+ArrowRight")
    shown.settle(0.4)
    assert "2, " in shown.root.locator(".tk-tip").inner_text().splitlines()[0]
    shown.page.keyboard.press("Escape")
    shown.settle()
    assert not shown.root.locator(".tk-tip").is_visible()


def test_a_click_makes_the_owners_blocks_stand_out(shown):
    before = shown.picture()
    frame = shown.widget.data
    block = int(frame.index[frame["state"] == "held"][0])
    shown.root.locator("canvas").click(position={"x": block * 24 + 12, "y": 12})
    assert shown.picture() != before
    assert f"standing out: {frame['request_ids'][block][0]}" in caption(shown)
    shown.page.keyboard.press("Escape")
    shown.page.mouse.move(5, 650)
    assert shown.picture() == before


def test_a_live_map_changes_as_the_engine_steps(bare):
    engine = make_engine(num_blocks=60, recorder=Record())
    shown = bare(lambda: BlockMap(engine))
    empty = shown.picture()
    assert "0 held" in caption(shown)
    engine.add(list(range(1, 20)), params(max_tokens=8))
    engine.run_until(lambda report: report.step == 3)
    shown.settle(0.5)
    assert shown.picture() != empty
    assert caption(shown).startswith("After step 3 of 3: ")
    assert shown.root.locator("input[type=range]").is_disabled()
    assert "engine.record.level = 'blocks'" in shown.root.inner_text()
    assert "req-0" in shown.root.locator(".tk-legend").inner_text()


def test_ten_thousand_blocks_are_drawn_within_a_frame(bare):
    shown = bare(lambda: BlockMap(SyntheticRun(num_requests=30, num_blocks=10_000, num_steps=9)))
    script = """async () => {
        const canvas = document.querySelector(".tk canvas");
        const redraw = () => new Promise((done) => {
            const original = CanvasRenderingContext2D.prototype.clearRect;
            CanvasRenderingContext2D.prototype.clearRect = function (...box) {
                const begin = performance.now();
                CanvasRenderingContext2D.prototype.clearRect = original;
                original.apply(this, box);
                queueMicrotask(() => done(performance.now() - begin));
            };
            canvas.dispatchEvent(new PointerEvent("pointerleave"));
        });
        const times = [];
        for (let round = 0; round < 15; round += 1) times.push(await redraw());
        return times.sort((a, b) => a - b)[7];
    }"""
    median_ms = shown.page.evaluate(script)
    assert median_ms < 16


def test_both_themes_are_drawn_in_their_own_colours(bare):
    pictures = {}
    for theme in ("light", "dark"):
        shown = bare(lambda: BlockMap(SyntheticRun(num_requests=30, num_steps=60)), theme=theme)
        shown.page.wait_for_function("() => document.querySelector('.tk').dataset.theme")
        assert shown.root.get_attribute("data-theme") == theme
        pictures[theme] = shown.picture()
    assert pictures["light"] != pictures["dark"]


def test_a_view_that_is_removed_says_goodbye(shown):
    shown.page.evaluate("() => window.hide()")
    shown.settle()
    assert shown.sent[-1]["type"] == "bye"
    assert not shown.widget.is_displayed


def test_a_page_without_a_kernel_shows_what_was_there(bare):
    def saved() -> BlockMap:
        block_map = BlockMap(SyntheticRun(num_requests=30, num_steps=60))
        block_map._repr_mimebundle_()
        block_map._on_custom = lambda *message: None  # nobody hears the page
        return block_map

    shown = bare(saved)
    shown.settle(2.8)
    assert "No answer from the kernel yet" in shown.root.inner_text()
    assert "After step 59: 256 blocks of 16 tokens" in shown.root.inner_text()
    assert shown.root.locator("img").is_visible()


def _holders(run, step):
    return {name for names in run.record.blocks_at(step)["request_ids"] for name in names}


def test_all_owners_of_a_shared_block_stand_out(bare):
    shown = bare(lambda: BlockMap(SyntheticRun(num_requests=30, num_steps=60), step=30))
    frame = shown.widget.data
    block = int(frame[frame["ref_count"] > 1]["block_id"].iloc[0])
    _choose(shown, block)
    told = caption(shown).split("standing out: ")[1]
    assert told == ", ".join(frame["request_ids"][block])


def test_who_stands_out_but_holds_nothing_makes_no_block_pale(bare):
    record = Record()
    record.level = "blocks"
    engine = make_engine(recorder=record)
    for start, max_tokens in ((1, 2), (2, 12)):
        engine.add([start] * 5, params(max_tokens=max_tokens))
    engine.run_until(lambda report: report.step == 6)
    shown = bare(lambda: BlockMap(engine, step=0))
    held = [names == ("req-0",) for names in shown.widget.data["request_ids"]]
    _choose(shown, held.index(True))
    assert caption(shown).endswith("standing out: req-0")
    shown.root.locator("input[type=range]").fill("6")
    shown.settle()
    assert caption(shown).endswith("(holds nothing at this step)")
    shown.page.mouse.move(5, 650)
    pale = shown.picture()
    shown.root.locator("canvas").focus()
    shown.page.keyboard.press("Escape")
    assert shown.picture() == pale


def _choose(shown, block):
    columns = int(shown.root.locator("canvas").bounding_box()["width"] // 24)
    at = {"x": 24 * (block % columns) + 9, "y": 24 * (block // columns) + 9}
    shown.root.locator("canvas").click(position=at)
    shown.settle()


def test_a_tip_reaches_out_of_an_output_that_is_cut_off(shown):
    shown.page.evaluate(
        "() => (document.getElementById('widget').style = 'height: 90px; overflow: hidden')"
    )
    shown.root.locator("canvas").hover(position={"x": 9, "y": 9})
    shown.settle(0.4)
    box = shown.root.locator(".tk-tip").bounding_box()
    x, y = box["x"] + 12, box["y"] + box["height"] - 6
    assert y > 98, "its end lies below the output"
    pixels = shown.page.screenshot(clip={"x": x - 8, "y": y - 8, "width": 60, "height": 12})
    shown.page.mouse.move(5, 650)
    shown.settle()
    assert pixels != shown.page.screenshot(clip={"x": x - 8, "y": y - 8, "width": 60, "height": 12})
