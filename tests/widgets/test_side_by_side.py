from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_engine, params
from tests.widgets.answers import Words, answer_of
from toolkit.errors import InvalidConfig
from toolkit.widgets import SideBySide

PLAIN = answer_of([1, 2, 3, 5], request_id="a")
STEERED = answer_of([1, 2, 4, 5, 0], request_id="b")


def beside(*outputs: Any, **kwargs: Any) -> SideBySide:
    return SideBySide(list(outputs), source=Words(), **kwargs)


def test_the_first_difference_is_found_and_told() -> None:
    view = beside(PLAIN, STEERED, names=["plain", "steered"])
    assert view.first_difference == 2
    assert "the first 2 tokens are the same" in repr(view)
    assert "plain ' sat', steered ' ran'" in repr(view)
    assert "3 of 5 places agree" in repr(view)


def test_answers_that_are_the_same_have_no_difference() -> None:
    view = beside(PLAIN, answer_of([1, 2, 3, 5], request_id="b"))
    assert view.first_difference is None
    assert "all 4 tokens are the same" in repr(view)


def test_one_that_ends_earlier_differs_there() -> None:
    view = beside(PLAIN, answer_of([1, 2], request_id="b"))
    assert view.first_difference == 2
    assert "b has ended" in repr(view)


def test_three_answers_are_compared_with_the_first(open_page: Any) -> None:
    view = beside(PLAIN, answer_of([1, 2, 3, 5], request_id="c"), STEERED)
    frame = open_page(view).frames[-1]
    assert frame.arrays["differs"].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 1],
    ]
    assert frame.meta["first_difference"] == 2
    assert frame.meta["names"] == ["a", "c", "b"]
    assert frame.arrays["token_id"][2].tolist() == [1, 2, 4, 5, 0]


def test_the_data_has_a_row_per_token_number() -> None:
    table = beside(PLAIN, STEERED).data
    assert table["a.text"].tolist() == ["The", " cat", " sat", ".", None]
    assert table["b.token_id"].tolist() == [1, 2, 4, 5, 0]
    assert table["is_same"].tolist() == [True, True, False, True, False]


def test_the_samples_of_one_answer_are_compared() -> None:
    view = SideBySide(answer_of([1, 2], [1, 3]), source=Words())
    assert view.names == ["req-0", "req-0.1"]
    assert view.first_difference == 1


def test_requests_of_an_engine_stand_for_their_own_sample() -> None:
    engine = make_engine()
    request = engine.add([1, 2, 3], params(max_tokens=3, n=2, temperature=1.0))
    engine.run_until_idle()
    view = SideBySide(request.samples)
    assert view.data[f"{request.id}.1.token_id"].tolist() == request.samples[1].output_token_ids


def test_answers_of_two_engines_may_have_the_same_id() -> None:
    view = beside(answer_of([1, 2]), answer_of([1, 3]))
    assert view.names == ["1: req-0", "2: req-0"]
    assert len(view.data.columns) == 6


def test_less_than_two_answers_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="two answers"):
        beside(PLAIN)
    with pytest.raises(InvalidConfig, match="3 names for 2 answers"):
        beside(PLAIN, STEERED, names=["a", "b", "c"])


def test_the_page_without_a_script_marks_what_differs() -> None:
    html = beside(PLAIN, STEERED, names=["<plain>", "steered"]).to_html()
    assert "&lt;plain&gt;" in html
    assert "<plain>" not in html
    same, _, rest = html.partition("The cat")
    assert "background:rgba" not in same.split("<body>")[1]
    assert "background:rgba(204,121,167,0.50)" in rest


def test_the_picture_is_a_png() -> None:
    assert beside(PLAIN, STEERED).to_png().startswith(b"\x89PNG")
