from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.widgets.answers import answer_of
from toolkit.errors import InvalidConfig, InvalidRequest
from toolkit.widgets import LogitLens


@dataclass
class FakeLens:
    """What ``capture.lens`` gives, made by hand: two layers, three positions, the two likeliest."""

    request_id: str = "req-0"
    layers: list[str] = field(default_factory=lambda: ["layers.0", "layers.1"])
    positions: list[int] = field(default_factory=lambda: [4, 5, 6])
    tokens: list[str] = field(default_factory=lambda: ["The", " <b>cat", "\n"])
    next_tokens: list[str] = field(default_factory=lambda: [" <b>cat", "\n", ""])
    logprob: Any = None
    top_ids: Any = None
    top_texts: Any = None
    top_logprobs: Any = None

    def __post_init__(self) -> None:
        self.logprob = np.array([[-9.0, -5.0, np.nan], [-1.0, -0.1, np.nan]], dtype=np.float32)
        self.top_ids = np.arange(12).reshape(2, 3, 2) % 5
        self.top_texts = [[[f"t{i}" for i in at] for at in layer] for layer in self.top_ids]
        self.top_logprobs = -np.arange(12, dtype=np.float32).reshape(2, 3, 2)


class FakeCapture(dict[str, Any]):
    def lens(self, request_id: str, top: int = 5) -> FakeLens:
        return FakeLens(request_id)


def test_a_page_gets_every_layer_and_position(open_page: Any) -> None:
    frame = open_page(LogitLens(FakeLens())).frames[-1]
    assert frame.meta["layers"] == ["layers.0", "layers.1"]
    assert frame.meta["tokens"] == ["The", " <b>cat", "\n"]
    assert frame.arrays["logprob"][1].tolist()[:2] == pytest.approx([-1.0, -0.1])
    names = [frame.meta["texts"][index] for index in frame.arrays["top"]]
    assert names == [f"t{i % 5}" for i in range(12)]
    assert frame.meta["num_top"] == 2
    assert len(frame.meta["texts"]) == 5  # each text goes once


def test_the_data_is_long() -> None:
    table = LogitLens(FakeLens()).data
    assert len(table) == 12
    row = table[(table["layer"] == "layers.1") & (table["position"] == 5) & (table["rank"] == 2)]
    assert row["text"].tolist() == ["t4"]
    assert row["next_token"].tolist() == ["\n"]
    assert row["next_logprob"].tolist() == pytest.approx([-0.1])
    assert row["logprob"].tolist() == [-9.0]


def test_the_lens_of_a_capture_is_read_by_request_or_by_answer() -> None:
    capture = FakeCapture({"req-0": {}, "req-7": {}})
    assert LogitLens(capture, "req-7").lens.request_id == "req-7"
    assert LogitLens(capture, answer_of([1], request_id="req-7")).lens.request_id == "req-7"


def test_a_capture_of_one_request_needs_no_name() -> None:
    assert LogitLens(FakeCapture({"req-3": {}})).lens.request_id == "req-3"


def test_a_capture_of_several_asks_which() -> None:
    with pytest.raises(InvalidRequest, match="2 requests"):
        LogitLens(FakeCapture({"a": {}, "b": {}}))


def test_what_is_no_capture_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"resid_post"):
        LogitLens({"layers.0": 1})


def test_the_page_without_a_script_has_the_last_layer_first() -> None:
    html = LogitLens(FakeLens()).to_html()
    assert html.index("layers.1") < html.index("layers.0")
    assert "&lt;b&gt;cat" in html
    assert "<b>cat" not in html


def test_the_picture_is_a_png() -> None:
    assert LogitLens(FakeLens()).to_png().startswith(b"\x89PNG")
