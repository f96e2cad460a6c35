from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.builders import make_engine, params
from tests.widgets.answers import Words, answer_of, awaited
from toolkit import LLM, SamplingParams
from toolkit.errors import InvalidConfig, InvalidRequest
from toolkit.record import Record
from toolkit.widgets import TokenView


class Why:
    """An explanation that says what it was asked."""

    def __init__(self, asked: str) -> None:
        self.asked = asked

    def _repr_html_(self) -> str:
        return f"<b>{self.asked}</b>"


def explain(answer: Any, token: int, sample: int) -> Why:
    name = answer if isinstance(answer, str) else answer.request_id
    return Why(f"{name} token {token} sample {sample}")


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(num_kv_blocks=64) as llm:
        yield llm


def test_a_page_gets_texts_and_numbers(open_page: Any) -> None:
    view = TokenView(answer_of([3, 8, 9, 0], num_cached_tokens=1), tokenizer=Words())
    frame = open_page(view).frames[-1]
    assert frame.kind == "tokens"
    assert frame.meta["texts"] == ["The", " cat", " sat", "C3", "é", "<end>"]
    assert frame.meta["kinds"] == ["text", "text", "text", "bytes", "text", "special"]
    assert frame.meta["num_prompt"] == 2
    assert frame.arrays["is_cached"].tolist() == [1, 0, 0, 0, 0, 0]
    assert frame.arrays["rank"].tolist() == [-1, -1, 1, 2, 3, 4]
    assert frame.arrays["logprob"].tolist()[2:] == pytest.approx([-0.5, -1.5, -2.5, -3.5])
    assert frame.meta["modes"] == ["probability", "rank", "plain"]
    assert frame.meta["mode"] == "probability"


def test_without_probabilities_it_says_how_to_have_them(open_page: Any) -> None:
    view = TokenView(answer_of([3], has_logprobs=False), tokenizer=Words())
    frame = open_page(view).frames[-1]
    assert frame.meta["modes"] == ["plain"]
    assert "SamplingParams(logprobs=0)" in frame.meta["note"]


def test_the_colour_that_was_chosen_outlives_the_page(open_page: Any) -> None:
    view = TokenView(answer_of([3]), tokenizer=Words())
    page = open_page(view)
    page.say("mode", mode="rank")
    assert view.colour_by == "rank"
    assert open_page(view, view="tab-2").frames[-1].meta["mode"] == "rank"
    with pytest.raises(InvalidConfig, match="colour_by='shape'"):
        view.colour_by = "shape"


def test_a_click_explains_a_token_and_a_new_page_shows_it_again(open_page: Any) -> None:
    answer = answer_of([3, 5], [4, 5])
    view = TokenView(answer, tokenizer=Words(), explain=explain)
    view.request_id = "req-0.1"
    page = open_page(view)
    assert page.frames[-1].meta["explains"]
    page.say("explain", row=3)
    frame = awaited(page, "explanation")
    assert frame.meta == {"row": 3, "html": "<b>req-0 token 1 sample 1</b>"}
    again = open_page(view, view="tab-2")
    assert again.frames[-1].kind == "explanation"
    assert again.frames[-1].is_full


def test_a_token_of_the_prompt_was_given(open_page: Any) -> None:
    view = TokenView(answer_of([3]), tokenizer=Words(), explain=explain)
    page = open_page(view)
    page.say("explain", row=0)
    frame = awaited(page, "explanation")
    assert "given, not chosen" in frame.meta["html"]


def test_an_explanation_that_cannot_be_given_says_why(open_page: Any) -> None:
    def refuse(answer: Any, token: int, sample: int) -> Why:
        raise InvalidRequest("the engine was <closed>")

    page = open_page(TokenView(answer_of([3]), tokenizer=Words(), explain=refuse))
    page.say("explain", row=2)
    frame = awaited(page, "explanation")
    assert "the engine was &lt;closed&gt;" in frame.meta["html"]


def test_without_anything_that_explains_a_click_does_nothing(open_page: Any) -> None:
    frame = open_page(TokenView(answer_of([3]), tokenizer=Words())).frames[-1]
    assert not frame.meta["explains"]


def test_several_answers_and_samples_can_be_chosen(open_page: Any) -> None:
    answers = [answer_of([3], [4]), answer_of([5], request_id="req-1")]
    view = TokenView(answers, tokenizer=Words())
    page = open_page(view)
    assert page.frames[-1].meta["requests"] == ["req-0", "req-0.1", "req-1"]
    page.say("request", request_id="req-1")
    frame = (
        page.frames[-1] if page.frames[-1].meta["request_id"] == "req-1" else page.wait("tokens")
    )
    assert frame.meta["texts"][-1] == "."
    with pytest.raises(InvalidRequest, match="no request 'req-9' here; there are req-0"):
        view.request_id = "req-9"


def test_a_record_shows_the_newest_request_that_has_tokens() -> None:
    engine = make_engine(recorder=Record())
    first = engine.add([1, 2, 3, 4, 5], params(max_tokens=3))
    engine.run_until_idle()
    engine.add([1, 2], params(max_tokens=3))
    view = TokenView(engine)
    assert view.request_id == first.id
    table = view.data
    # Of a request that has ended the record knows the length of the prompt, not its tokens.
    assert table["position"].tolist() == [5, 6, 7]
    assert table["token_id"].tolist() == first.output_token_ids
    assert "5 prompt tokens" in repr(view)
    assert TokenView(engine.record, first.id).data["step"].notna().all()


def test_an_unknown_request_is_told_at_once() -> None:
    engine = make_engine(recorder=Record())
    with pytest.raises(InvalidRequest, match="no request 'req-5' here; there are none"):
        TokenView(engine, "req-5")


def test_nothing_to_show_yet_is_no_error(open_page: Any) -> None:
    view = TokenView(make_engine(recorder=Record()))
    frame = open_page(view).frames[-1]
    assert frame.meta["texts"] == []
    assert "no request has tokens yet" in frame.meta["title"]
    assert len(view.data) == 0
    assert view.to_png().startswith(b"\x89PNG")


def test_a_running_request_grows_on_the_page(open_page: Any) -> None:
    engine = make_engine(recorder=Record())
    request = engine.add([1, 2, 3], params(max_tokens=8))
    engine.step()
    view = TokenView(engine, request)
    assert view.is_live
    page = open_page(view)
    assert len(page.frames[-1].meta["texts"]) == 4
    engine.run_until_idle()
    awaited(page, "tokens", lambda meta: len(meta["texts"]) == 11)
    assert not view.is_live


def test_one_of_several_samples_is_shown_by_its_own_id() -> None:
    engine = make_engine(recorder=Record())
    request = engine.add([1, 2, 3], params(max_tokens=3, n=2, temperature=1.0))
    engine.run_until_idle()
    second = request.samples[1]
    view = TokenView(second)
    assert view.request_id == second.id
    assert view.data["token_id"].tolist()[3:] == second.output_token_ids
    assert TokenView(engine, second.id).data["token_id"].tolist() == second.output_token_ids


def test_a_very_long_text_shows_its_end(open_page: Any) -> None:
    frame = open_page(TokenView(answer_of([2] * 6000), tokenizer=Words())).frames[-1]
    assert len(frame.meta["texts"]) == 5000
    assert frame.meta["first_row"] == 1002
    assert frame.meta["num_prompt"] == 0
    assert "the last 5,000 of 6,002 tokens" in frame.meta["note"]


def test_the_page_without_a_script_is_coloured_and_escaped() -> None:
    html = TokenView(answer_of([3, 0]), tokenizer=Words()).to_html()
    assert "&lt;end&gt;" in html
    assert "<end>" not in html
    assert "background:rgba(224,138,0," in html


@pytest.mark.parametrize("mode", ["probability", "rank", "plain"])
def test_the_picture_is_a_png_in_every_colour(mode: str) -> None:
    view = TokenView(answer_of([3, 6, 7, 8, 9] * 30), tokenizer=Words())
    view.colour_by = mode
    assert view.to_png().startswith(b"\x89PNG")


def test_characters_without_a_glyph_are_boxes_in_the_picture() -> None:
    class Kanji(Words):
        def token_text(self, token_id: int) -> str:
            return "日"

        @property
        def token_bytes(self) -> Any:  # type: ignore[override]
            return type("Bytes", (), {"special_ids": (), "__call__": lambda *_: "日".encode()})()

    assert TokenView(answer_of([3, 5]), tokenizer=Kanji()).to_png().startswith(b"\x89PNG")


def test_an_answer_of_a_model_reads_as_its_text(llm: LLM) -> None:
    params = SamplingParams(max_tokens=12, logprobs=0, temperature=0.9, seed=3)
    answers = llm.generate(["Once upon a time", "5 € for a 日本 book"], params)
    for answer in answers:
        table = TokenView(llm, answer).data
        output = table[(table["part"] == "output") & (table["kind"] == "text")]
        assert "".join(output["text"]) == answer.outputs[0].text
        assert output["step"].notna().all()
    prompt = TokenView(llm, answers[1]).data.query("part == 'prompt' and kind == 'text'")
    assert "".join(prompt["text"]) == "5 € for a 日本 book"


def test_an_answer_and_its_llm_may_come_in_either_order(llm: LLM) -> None:
    answer = llm.generate("A cat", SamplingParams(max_tokens=3))[0]
    assert TokenView(answer, llm).data.equals(TokenView(llm, answer).data)
    assert TokenView(llm).request_id == answer.request_id


def test_sources_are_coloured_with_a_key() -> None:
    engine = make_engine(recorder=Record(level="blocks"))
    engine.add([1, 2], params(3))
    engine.run_until_idle()
    view = TokenView(engine.record.freeze())
    assert view.colour_by == "source"
    assert "</i>sampled" in view.static_html()
    (legend,) = view.figure().legends
    assert [text.get_text() for text in legend.get_texts()] == ["sampled"]
