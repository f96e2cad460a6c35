from __future__ import annotations

import gc
import re
import time
import weakref
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from toolkit.widgets import Widget
from toolkit.widgets.fallback import raster_png
from toolkit.widgets.ticker import TICKER


class Counter(Widget):
    """Counts up as long as it lives."""

    def __init__(self, *, live: bool = False) -> None:
        self.number, self.live = 0, live
        super().__init__()
        self.on_message("add", lambda message: self.add(message["by"]))

    @property
    def is_live(self) -> bool:
        return self.live

    @property
    def data(self) -> pd.DataFrame:
        return pd.DataFrame({"number": [self.number]})

    def add(self, by: int) -> None:
        if by < 0:
            raise ValueError("this counts up")
        self.number += by
        self.send_frame("number", {"number": self.number}, values=np.arange(self.number))

    def full_frame(self) -> None:
        self.send_frame("number", {"number": self.number})

    def tick(self) -> None:
        self.add(1)

    def figure(self) -> Any:
        from toolkit.widgets.fallback import new_figure

        figure = new_figure(2, 1)
        figure.subplots().plot([0, 1])
        return figure


class References(HTMLParser):
    """Collects what a page would load, and its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.found.append("script")
        self.found += [
            value
            for name, value in attrs
            if name in ("src", "href") and value and not value.startswith(("data:", "#"))
        ]


def wait_until(condition: Any, timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_a_page_that_opens_gets_everything(open_page: Any):
    page = open_page(Counter())
    assert [(f.kind, f.meta["number"], f.is_full) for f in page.frames] == [("number", 0, True)]


def test_a_reload_gets_the_state_of_now_not_of_then(open_page: Any):
    counter = Counter()
    open_page(counter).say("add", by=3)
    again = open_page(counter, view="after reload")
    assert again.frames[-1].is_full
    assert again.frames[-1].meta == {"number": 3}


def test_an_action_that_raises_is_told_in_the_page_and_changes_nothing(
    open_page: Any, caplog: pytest.LogCaptureFixture
):
    page = open_page(Counter())
    page.say("add", by=-1)
    assert page.wait("error").meta == {"message": "ValueError: this counts up"}
    assert "could not do what was asked" in caplog.text
    page.say("add", by=2)
    assert page.wait("number").meta == {"number": 2}


def test_an_unknown_action_and_a_half_message_are_ignored(open_page: Any):
    page = open_page(Counter())
    assert page.say("dance") == []
    page.widget._on_custom(page.widget, {}, [])


def test_a_live_widget_ticks_while_it_is_shown_and_stops_when_it_is_not(open_page: Any):
    counter = Counter(live=True)
    page = open_page(counter)
    wait_until(lambda: page.read() and counter.number >= 3)
    page.say("bye")
    wait_until(lambda: counter not in TICKER._due_s)
    number = counter.number
    time.sleep(0.3)
    assert counter.number == number


def test_a_page_that_never_answers_gets_a_frame_a_second(open_page: Any):
    counter = Counter(live=True)
    page = open_page(counter, answers=False)
    time.sleep(1.5)
    assert len(page.read()) + 1 <= 4
    assert counter.number <= 3


def test_a_widget_that_nobody_holds_is_not_kept_by_the_ticker(open_page: Any):
    counter = Counter(live=True)
    page = open_page(counter)
    page.say("bye")
    gone = weakref.ref(counter)
    counter.close()
    del counter, page
    wait_until(lambda: (gc.collect(), gone() is None)[1])


def test_a_tick_that_raises_is_told_once_a_tick_and_the_ticker_lives(
    open_page: Any, caplog: pytest.LogCaptureFixture
):
    broken = Counter(live=True)
    broken.tick = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    page = open_page(broken)
    assert page.wait("error").meta["message"].startswith("ZeroDivisionError")
    page.say("bye")
    healthy = Counter(live=True)
    other = open_page(healthy)
    wait_until(lambda: other.read() and healthy.number > 1)


def test_ticking_takes_a_sixtieth_of_the_time_at_most(open_page: Any):
    busy = Counter(live=True)
    calls = []

    def tick() -> None:
        calls.append(1)
        end_s = time.thread_time() + 0.02
        while time.thread_time() < end_s:
            pass

    busy.tick = tick  # type: ignore[method-assign]
    page = open_page(busy)
    until = time.monotonic() + 1.6
    while time.monotonic() < until:
        page.read()
        time.sleep(0.02)
    assert 1 <= len(calls) <= 2


def test_the_module_is_imported_once_whatever_number_of_widgets():
    one, two = Counter(), Counter()
    assert one._esm == two._esm
    assert one._module_key == two._module_key
    assert len(one._esm) < 1500, "what a page imports for every widget must be small"


def test_the_mime_bundle_holds_the_live_view_and_what_it_falls_back_to():
    counter = Counter()
    data, _ = counter._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == counter.model_id
    assert data["text/plain"] == "Counter()"
    assert data["text/html"].startswith('<div class="tk-static">')
    assert References(data["text/html"]).found == []
    assert counter._fallback == data["text/html"]


def test_a_notebook_that_is_run_unattended_keeps_the_fallback_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("toolkit.widgets.base.can_show_widgets", lambda: False)
    data, _ = Counter()._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html"}


def test_pictures_and_pages_stand_alone(tmp_path: Any):
    counter = Counter()
    assert counter.to_png(tmp_path / "a.png") == tmp_path / "a.png"
    assert (tmp_path / "a.png").read_bytes() == counter.to_png()
    html = counter.to_html()
    assert counter.to_html(tmp_path / "a.html") == tmp_path / "a.html"
    assert (tmp_path / "a.html").read_text() == html
    assert html.startswith("<!doctype html>")
    assert References(html).found == []
    assert not re.search(r"https?://", html)


def test_figures_leave_pyplot_alone():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    Counter().to_png()
    assert plt.get_fignums() == before


def test_a_raster_becomes_the_picture_it_is(tmp_path: Any):
    from matplotlib.image import imread

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(raster_png(pixels))
    seen = np.round(imread(tmp_path / "a.png")[..., :3] * 255).astype(np.uint8)
    assert (seen == pixels).all()
