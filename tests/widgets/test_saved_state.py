"""What a notebook may keep of a widget, and what each of them must offer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toolkit.widgets
from tests.builders import make_engine
from tests.widgets.synthetic import SyntheticRun
from toolkit.errors import InvalidConfig
from toolkit.record import Record
from toolkit.widgets import BlockMap, EngineDebugger, SamplerLab, SideBySide, Timeline, Widget

LARGE = {"num_requests": 2000, "num_steps": 1000, "num_blocks": 10_000}
MAKERS: dict[str, Callable[[], Widget]] = {
    "BlockMap": lambda: BlockMap(SyntheticRun(**LARGE)),
    "Timeline": lambda: Timeline(SyntheticRun(**LARGE)),
}
WIDGETS = [
    name
    for name in toolkit.widgets.__all__
    if isinstance(kind := getattr(toolkit.widgets, name), type) and issubclass(kind, Widget)
]


@pytest.mark.parametrize("name", MAKERS)
def test_the_saved_state_of_a_large_view_is_below_100_kb(name: str, open_page: Any):
    widget = MAKERS[name]()
    widget._repr_mimebundle_()
    open_page(widget)
    state = {key: value for key, value in widget.get_state().items() if key != "layout"}
    assert len(json.dumps(state)) < 100_000


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SamplerLab(Record()), "holds no logits"),
        (lambda: SamplerLab("x.rec"), "holds no logits"),
        (lambda: SamplerLab(None), "holds no logits"),
        (lambda: SideBySide(None), "NoneType: answers"),
        (lambda: SideBySide(3), "int: answers"),
        (lambda: SideBySide("x.rec"), "str: answers"),
        (lambda: SideBySide(Record()), "Record: answers"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_what_can(make: Callable[[], Widget], says: str):
    with pytest.raises(InvalidConfig, match=says):
        make()


def test_what_is_closed_leaves_no_model_open():
    engine = make_engine(recorder=Record(level="blocks"))
    views: list[Any] = [EngineDebugger(engine), SamplerLab([1.0, 2.0])]
    models = [model for view in views for model in (view, view.layout)]
    models += [model for part in views[0].children for model in (part, part.layout)]
    assert all(model.comm is not None for model in models)
    for view in views:
        view.close()
    assert all(model.comm is None for model in models)


@pytest.mark.parametrize("name", [name for name in WIDGETS if name != "Widget"])
def test_every_widget_has_a_module_without_network_and_a_fallback(name: str):
    kind = getattr(toolkit.widgets, name)
    script = kind._script
    assert isinstance(script, Path)
    text = script.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "import " not in text.split("export default")[0]
    assert kind.figure is not Widget.figure or kind.static_html is not Widget.static_html
    assert kind.full_frame is not Widget.full_frame
    assert kind.data is not Widget.data
