"""TokenView, SideBySide, LogitLens and SamplerLab in a page: pointer, keys, buttons, sliders."""

from __future__ import annotations

import pytest

from tests.widgets.answers import Words, answer_of
from tests.widgets.test_logit_lens import FakeLens
from tests.widgets.test_token_view import explain
from toolkit.widgets import LogitLens, SamplerLab, SideBySide, TokenView

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -2.0]


def background(locator):
    return locator.evaluate("(node) => getComputedStyle(node).backgroundColor")


def status(shown):
    return shown.root.locator(".tk-status").first.inner_text()


# ---- TokenView


@pytest.fixture
def text(bare):
    answers = [answer_of([3, 8, 9, 6, 0], num_cached_tokens=1), answer_of([5], request_id="req-1")]
    return bare(lambda: TokenView(answers, tokenizer=Words(), explain=explain))


def test_hovering_over_a_token_tells_its_numbers(text):
    assert "5 output tokens" in status(text)
    text.root.locator("[data-index='4']").hover()
    assert "rank 3" in status(text)
    assert "probability 8.2 %" in status(text)


def test_line_ends_and_halves_of_characters_can_be_seen(text):
    shown = text.root.locator("[data-index]").all_inner_texts()
    assert [token.strip() for token in shown] == ["The", "cat", "sat", "C3", "é", "⏎", "<end>"]


def test_another_colour_repaints_the_tokens(text):
    token = text.root.locator("[data-index='6']")
    before = background(token)
    text.root.locator("button", has_text="plain").click()
    assert background(token) != before
    text.settle()
    assert text.widget.colour_by == "plain"
    assert text.root.locator("button", has_text="entropy").is_disabled()


def test_a_click_shows_why_and_arrows_and_enter_do_too(text):
    side = text.root.locator(".tk-side")
    assert not side.is_visible()
    text.root.locator("[data-index='2']").click()
    text.settle()
    assert side.inner_text() == "req-0 token 0 sample 0"
    text.root.locator(".tk-flow").focus()
    text.page.keyboard.press("ArrowRight")
    text.page.keyboard.press("Enter")
    text.settle()
    assert side.inner_text() == "req-0 token 1 sample 0"
    text.page.keyboard.press("Escape")
    assert not side.is_visible()


def test_another_request_can_be_chosen(text):
    text.root.locator("select").select_option("req-1")
    text.settle()
    assert text.root.locator("[data-index]").all_inner_texts()[-1] == "."


# ---- SideBySide


@pytest.fixture
def columns(bare):
    plain, steered = answer_of([1, 2, 3, 5]), answer_of([1, 2, 4, 5, 0], request_id="b")
    names = ["plain", "steered"]
    return bare(lambda: SideBySide([plain, steered], names, source=Words()))


def test_what_differs_is_coloured_and_the_first_difference_is_reached(columns):
    same, differs = (columns.root.locator(f"[data-index='{i}']").nth(1) for i in (1, 2))
    assert background(same) != background(differs)
    columns.root.locator("button", has_text="first difference").click()
    assert status(columns).startswith('token 2 · plain: " sat"')
    assert columns.root.locator(".tk-current").count() == 2


def test_tokens_can_stand_one_a_row(columns):
    columns.root.locator("button", has_text="one token a row").click()
    rows = columns.root.locator("tbody tr")
    assert rows.count() == 5
    assert rows.nth(2).inner_text().split() == ["2", "sat", "ran"]


# ---- LogitLens


def test_the_lens_tells_the_likeliest_tokens_of_a_cell(bare):
    lens = bare(lambda: LogitLens(FakeLens()))
    rows = lens.root.locator("tbody tr")
    assert rows.first.locator("th").inner_text() == "layers.1"
    cells = rows.first.locator("td")
    assert background(cells.nth(1)) != background(rows.nth(1).locator("td").nth(1))
    cells.nth(0).hover()
    assert status(lens).startswith("layers.1, position 4: t1 ")
    assert "then came" in status(lens)
    lens.root.locator(".tk-scroll").focus()
    lens.page.keyboard.press("ArrowDown")
    lens.page.keyboard.press("ArrowRight")
    assert status(lens).startswith("layers.0, position 5: ")


# ---- SamplerLab


@pytest.fixture
def sampler(bare):
    return bare(lambda: SamplerLab(LOGITS, tokenizer=Words()))


def widths(shown):
    return shown.root.locator(".tk-after").evaluate_all("(bars) => bars.map((b) => b.style.width)")


def slide(shown, label, value):
    shown.root.locator(".tk-control", has_text=label).locator("input").fill(value)
    shown.settle()


def test_a_slider_moves_the_bars_and_marks_what_is_cut(sampler):
    before = widths(sampler)
    slide(sampler, "temperature", "0.5")
    assert widths(sampler) != before
    slide(sampler, "top-k", "2")
    assert sampler.root.locator(".tk-cut").count() == 4
    assert sampler.root.locator(".tk-line").count() == 1
    assert sampler.widget.params.top_k == 2
    assert sampler.widget.params.temperature == 0.5


def test_a_step_of_the_chain_can_be_looked_at_alone(sampler):
    slide(sampler, "top-k", "2")
    sampler.root.locator(".tk-stage", has_text="raw logits").click()
    assert sampler.root.locator(".tk-cut").count() == 0
    sampler.root.locator(".tk-stage", has_text="top-k").click()
    assert sampler.root.locator(".tk-cut").count() == 4


def test_buttons_draw_again_and_many_times(sampler):
    sampler.root.locator("button", has_text="draw 500").click()
    sampler.settle()
    assert sampler.root.locator(".tk-drawn").count() >= 4
    sampler.root.locator("button", has_text="redraw").click()
    sampler.settle()
    assert sampler.widget.stages.position == 1
    assert sampler.root.locator(".tk-drawn").count() == 0
    assert sampler.root.locator(".tk-chosen .tk-mark").inner_text().startswith("◆")


def test_the_token_that_is_picked_has_a_bias(sampler):
    sampler.root.locator(".tk-row").nth(3).click()
    slide(sampler, "logit bias of", "8")
    assert sampler.widget.params.logit_bias == {3: 8.0}
    assert "bias 8" in sampler.root.locator(".tk-row").nth(3).inner_text()
    sampler.root.locator("button", has_text="reset").click()
    sampler.settle()
    assert not sampler.widget.params.logit_bias


def test_the_rows_can_be_walked_with_the_keyboard(sampler):
    sampler.root.locator(".tk-rows").focus()
    sampler.page.keyboard.press("ArrowDown")
    sampler.page.keyboard.press("ArrowDown")
    assert sampler.root.locator(".tk-row.tk-current").get_attribute("data-id") == "1"
    sampler.page.keyboard.press("r")
    sampler.settle()
    assert sampler.widget.stages.position == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_the_page_in_both_themes(bare, theme):
    shown = bare(lambda: TokenView(answer_of([3, 5]), tokenizer=Words()), theme=theme)
    shown.settle(0.8)  # the theme is looked up again when the style sheets are there
    token = shown.root.locator("[data-index='3']")
    colour = token.evaluate("(node) => getComputedStyle(node).color")
    brightness = sum(int(part) for part in colour[4:-1].split(",")) / 3
    assert (brightness > 150) == (theme == "dark")
