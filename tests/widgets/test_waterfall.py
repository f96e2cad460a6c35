"""The waterfall draws what record.why says, and goes from request to request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_engine, params
from toolkit.engine import Engine
from toolkit.errors import InvalidConfig
from toolkit.record import Record
from toolkit.widgets import Waterfall


@pytest.fixture
def engine() -> Engine:
    engine = make_engine(recorder=Record(), max_num_seqs=2)
    for length in (5, 9, 3, 7):
        engine.add(list(range(1, length + 1)), params(6))
    engine.run_until_idle()
    return engine


def test_a_page_gets_the_spans_of_the_last_request(engine: Engine, open_page: Any) -> None:
    frame = open_page(Waterfall(engine)).newest("waterfall")
    names = list(engine.record.requests.request_id)
    assert frame.meta["request_id"] == names[-1]
    assert (frame.meta["index"], frame.meta["num"]) == (3, 4)
    spans = engine.record.spans([names[-1]])
    origin_s = spans.start_s.iloc[0]
    assert frame.arrays["span_end_s"] == pytest.approx(spans.end_s.to_numpy() - origin_s)
    assert "wait_seqs" in frame.meta["rows"]
    assert frame.meta["sentence"] == engine.record.why(names[-1]).sentence  # type: ignore[union-attr]
    row = engine.record.requests.set_index("request_id").loc[names[-1]]
    computed = row.num_prompt_tokens - row.num_cached_tokens + row.num_output_tokens - 1
    assert frame.arrays["batch_own_tokens"].sum() == computed  # the last token is not


def test_arrows_go_to_the_neighbours_and_stop_at_the_ends(engine: Engine, open_page: Any) -> None:
    waterfall = Waterfall(engine)
    page = open_page(waterfall)
    names = list(engine.record.requests.request_id)
    page.say("step", by=-1)
    assert waterfall.request_id == names[2]
    page.say("step", by=1)
    page.say("step", by=1)
    assert waterfall.request_id == names[3]
    page.say("show", request_id=names[0])
    page.until("waterfall", lambda frame: frame.meta["index"] == 0)


def test_next_goes_by_the_column_that_was_named(engine: Engine) -> None:
    slowest = engine.record.requests.sort_values("ttft_s").request_id.iloc[-1]
    assert Waterfall(engine, sort="ttft_s").request_id == slowest
    with pytest.raises(InvalidConfig, match="no column"):
        Waterfall(engine, sort="beauty")


def test_an_unknown_request_is_said_in_the_page_and_the_view_stays(
    engine: Engine, open_page: Any
) -> None:
    waterfall = Waterfall(engine)
    page = open_page(waterfall)
    before = waterfall.request_id
    page.say("show", request_id="req-of-nobody")
    assert "req-of-nobody" in page.until("error", bool).meta["message"]
    assert waterfall.request_id == before


def test_a_running_request_is_followed_until_it_ends(open_page: Any) -> None:
    engine = make_engine(recorder=Record())
    engine.add([1, 2, 3], params(8))
    engine.step()
    engine.step()
    waterfall = Waterfall(engine)
    page = open_page(waterfall)
    assert waterfall.is_live
    engine.run_until_idle()
    page.wait("waterfall")
    assert not waterfall.is_live
    assert waterfall.data.num_tokens.sum() == 3 + 8 - 1


def test_without_a_page_it_is_what_why_shows(engine: Engine) -> None:
    waterfall = Waterfall(engine)
    assert "<svg" in waterfall.static_html()
    assert waterfall.to_png().startswith(b"\x89PNG")
    assert list(waterfall.data.request_id.unique()) == [waterfall.request_id]


def test_a_record_without_requests_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="no request yet"):
        Waterfall(make_engine(recorder=Record()))
