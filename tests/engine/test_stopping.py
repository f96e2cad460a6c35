"""When a request ends, and what its last token and its text are."""

from __future__ import annotations

import pytest

from tests.builders import expected_output, make_engine, params
from tests.engine.letters import Letters, spell
from toolkit.request import FinishReason, OutputPiece, SamplingParams

PROMPT = [1, 2, 6]
TOKENS = expected_output(PROMPT, 12)
assert len(set(TOKENS[:6])) == 6, "the tests below tell them apart"


def test_max_tokens_is_a_length():
    request = make_and_run(params(4))
    assert request.output_token_ids == TOKENS[:4]
    assert request.finish_reason is FinishReason.LENGTH


def make_and_run(sampling: SamplingParams, *, eos: tuple[int, ...] = (), **kwargs: int):
    engine = make_engine(text=Letters(eos), **kwargs)
    request = engine.add(PROMPT, sampling)
    engine.run_until_idle()
    return request


def test_without_max_tokens_the_context_is_filled():
    request = make_and_run(params(None), max_model_len=10)
    assert request.num_tokens == 10
    assert request.finish_reason is FinishReason.LENGTH


def test_max_tokens_beyond_the_context_ends_with_the_context():
    request = make_and_run(params(500), max_model_len=9)
    assert request.output_token_ids == TOKENS[:6]
    assert request.finish_reason is FinishReason.LENGTH


def test_a_prompt_one_short_of_the_context_gets_one_token():
    request = make_and_run(params(5), max_model_len=4)
    assert request.output_token_ids == TOKENS[:1]


def test_an_end_of_sequence_token_stops_and_stays_out_of_the_text():
    request = make_and_run(SamplingParams(max_tokens=9), eos=(TOKENS[3],))
    assert request.output_token_ids == TOKENS[:4]
    assert request.finish_reason is FinishReason.STOP
    assert request.stop_reason is None
    assert request.output.text == spell(TOKENS[:3])


def test_ignore_eos_goes_on():
    request = make_and_run(SamplingParams(max_tokens=6, ignore_eos=True), eos=(TOKENS[3],))
    assert request.output_token_ids == TOKENS[:6]


def test_a_stop_token_stops_and_is_named():
    request = make_and_run(params(9, stop_token_ids=[TOKENS[2], 49]))
    assert request.output_token_ids == TOKENS[:3]
    assert request.stop_reason == TOKENS[2]
    assert request.output.text == spell(TOKENS[:2])


def test_a_stop_tokens_text_can_be_kept():
    request = make_and_run(params(9, stop_token_ids=[TOKENS[2]], include_stop_str_in_output=True))
    assert request.output.text == spell(TOKENS[:3])


@pytest.mark.parametrize("min_tokens", [1, 2, 3, 4])
def test_no_stop_counts_before_min_tokens(min_tokens: int):
    request = make_and_run(params(6, stop_token_ids=[TOKENS[2]], min_tokens=min_tokens))
    assert request.num_output_tokens == (3 if min_tokens <= 3 else 6)


def test_no_stop_string_counts_before_min_tokens():
    request = make_and_run(params(6, stop=[spell(TOKENS[1:3])], min_tokens=4))
    assert request.output.text == spell(TOKENS[:6])


def test_a_stop_string_across_tokens_cuts_the_text_and_keeps_the_tokens():
    stop = spell(TOKENS[2:4])
    request = make_and_run(params(9, stop=[stop, "no such text"]))
    assert request.output_token_ids == TOKENS[:4]
    assert request.output.text == spell(TOKENS[:2])
    assert request.finish_reason is FinishReason.STOP
    assert request.stop_reason == stop


def test_a_stop_string_can_be_kept():
    stop = spell(TOKENS[2:4])
    request = make_and_run(params(9, stop=stop, include_stop_str_in_output=True))
    assert request.output.text == spell(TOKENS[:4])


def test_on_the_last_allowed_token_a_stop_wins_over_the_length():
    request = make_and_run(params(3, stop=[spell(TOKENS[1:3])]))
    assert request.finish_reason is FinishReason.STOP


def test_text_that_was_held_back_comes_with_the_end():
    """The text ends with what could have begun a stop string."""
    engine = make_engine(text=Letters())
    pieces: list[OutputPiece] = []
    request = engine.add(PROMPT, params(3, stop=[spell([TOKENS[2], 49])]), sink=pieces.append)
    engine.run_until_idle()
    assert [piece.text for piece in pieces] == [spell([token]) for token in TOKENS[:3]]
    assert request.output.text == spell(TOKENS[:3])


@pytest.mark.parametrize("how", ["abort", "fail one", "break"])
def test_text_that_was_held_back_comes_with_an_early_end_too(how: str):
    engine = make_engine(text=Letters())
    pieces: list[OutputPiece] = []
    request = engine.add(PROMPT, params(9, stop=[spell(TOKENS[1:2]) + "?"]), sink=pieces.append)
    engine.step()
    engine.step()
    assert "".join(piece.text for piece in pieces) == spell(TOKENS[:1])
    if how == "abort":
        engine.abort(request.id)
    elif how == "fail one":
        engine.runner.fail_requests.add(request.id)
    else:
        engine.runner.fail_steps.add(engine.scheduler.next_step)
    engine.run_until_idle()
    assert request.output.text == spell(TOKENS[:2])
    assert "".join(piece.text for piece in pieces) == spell(TOKENS[:2])


def test_no_text_is_made_when_none_is_wanted():
    request = make_and_run(params(3, detokenize=False))
    assert request.text is None
    assert request.output.text == ""
    assert request.output_token_ids == TOKENS[:3]
