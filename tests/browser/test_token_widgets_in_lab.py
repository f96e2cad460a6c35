"""The token widgets and the debugger in a real JupyterLab: rendered, clicked, without an error."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow  # a JupyterLab and its kernel

MAKE = """
from tests.builders import make_engine, params
from tests.widgets.answers import Words, answer_of
from tests.widgets.test_logit_lens import FakeLens
from toolkit.record import Record
from toolkit.widgets import EngineDebugger, LogitLens, SamplerLab, SideBySide, TokenView
engine = make_engine(recorder=Record())
for start in range(3):
    engine.add([start + 1] * 5, params(max_tokens=8))
answers = [answer_of([3, 8, 9]), answer_of([4, 0], request_id="req-1")]
"""
CELLS = [
    MAKE,
    "lab = SamplerLab([2.0, 1.0, 0.5, 0.0], tokenizer=Words())\nlab",
    "TokenView(answers, tokenizer=Words())",
    "SideBySide(answers, source=Words())",
    "LogitLens(FakeLens())",
    "EngineDebugger(engine)",
]


def test_every_widget_is_drawn_and_answers(lab):
    notebook = lab(CELLS)
    notebook.run_all()
    sampler, text, beside, lens, controls = map(notebook.widget, range(5))
    controls.locator("button", has_text="step ▶").wait_for(timeout=20_000)
    sampler.locator(".tk-control", has_text="top-k").locator("input").fill("2")
    sampler.locator(".tk-cut").first.wait_for(timeout=10_000)
    assert sampler.locator(".tk-cut").count() == 2
    text.locator("[data-index='3']").hover()
    assert "position 3" in text.locator(".tk-status").first.inner_text()
    beside.locator("button", has_text="first difference").click()
    assert beside.locator(".tk-current").count() == 2
    lens.locator("td").first.hover()
    assert "layers.1" in lens.locator(".tk-status").inner_text()
    controls.locator("button", has_text="step ▶").click()
    controls.locator(".tk-plan", has_text="req-0").wait_for(timeout=10_000)
    notebook.run("print('token', lab.params.top_k, engine.scheduler.next_step)")
    assert "token 2 1" in notebook.output()
