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


def make_and_run(
    sampling: SamplingParams, *, eos: tuple[int, ...] = (), form: str = "{}", **kwargs: int
):
    engine = make_engine(text=Letters(eos, form=form), **kwargs)
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


@pytest.mark.parametrize(("min_tokens", "num_tokens"), [(2, 3), (3, 6), (4, 6)])
def test_a_stop_string_counts_from_the_token_after_min_tokens(min_tokens: int, num_tokens: int):
    """vLLM's rule: it must be completed by a token beyond the first ``min_tokens``."""
    request = make_and_run(params(6, stop=[spell(TOKENS[1:3])], min_tokens=min_tokens))
    assert request.num_output_tokens == num_tokens


def test_a_stop_string_before_min_tokens_counts_again_when_it_comes_again():
    prompt = next(p for p in range(50) if repeats(expected_output([p], 12)))
    tokens = expected_output([prompt], 12)
    again = tokens.index(tokens[2], 3)
    engine = make_engine(text=Letters())
    request = engine.add([prompt], params(12, stop=[spell(tokens[2:3])], min_tokens=4))
    engine.run_until_idle()
    assert request.output.text == spell(tokens[:again])


def repeats(tokens: list[int]) -> bool:
    """Whether the third token comes again, but not at once."""
    return tokens[2] not in tokens[:2] + tokens[3:5] and tokens[2] in tokens[5:]


def test_a_stop_string_that_began_within_min_tokens_counts():
    request = make_and_run(params(6, stop=[spell(TOKENS[1:4])], min_tokens=3))
    assert request.num_output_tokens == 4
    assert request.output.text == spell(TOKENS[:1])


@pytest.mark.parametrize(("include", "rest"), [(False, "["), (True, "[{}")])
def test_a_stop_string_inside_a_token_cuts_off_the_rest_of_it(include: bool, rest: str):
    stop = spell(TOKENS[2:3])
    sampling = params(6, stop=stop, include_stop_str_in_output=include)
    request = make_and_run(sampling, form="[{}]")
    assert request.output.text == "".join(f"[{x}]" for x in spell(TOKENS[:2])) + rest.format(stop)
    assert request.num_output_tokens == 3


@pytest.mark.parametrize("form", ["{}", "[{}]"])
@pytest.mark.parametrize("turned", [True, False])
def test_of_two_stop_strings_the_first_to_be_complete_counts(form: str, turned: bool):
    """Where one begins with the other, and both are complete at once, that is the longer one."""
    letters = spell(TOKENS[1:3])
    longer = letters if form == "{}" else f"{letters[0]}]"
    stops = [longer, letters[0]]
    request = make_and_run(params(6, stop=stops[::-1] if turned else stops), form=form)
    assert request.stop_reason == (letters[0] if form == "{}" else longer)
    assert request.num_output_tokens == 2


def test_every_sample_stops_at_its_own_stop_string():
    outputs = [expected_output(PROMPT, 12, sample) for sample in range(3)]
    stops = [spell(tokens[4:6]) for tokens in outputs]
    assert len(set(stops)) == 3
    engine = make_engine(text=Letters())
    request = engine.add(PROMPT, params(12, n=3, temperature=1.0, stop=stops))
    engine.run_until_idle()
    for tokens, stop, sample in zip(outputs, stops, request.output.outputs, strict=True):
        assert (sample.text, sample.stop_reason) == (spell(tokens[:4]), stop)


@pytest.mark.parametrize("include", [False, True])
def test_a_stream_never_shows_a_part_of_a_stop_string(include: bool):
    stop = spell(TOKENS[2:5])
    engine = make_engine(text=Letters())
    pieces: list[OutputPiece] = []
    sampling = params(9, stop=[stop], include_stop_str_in_output=include)
    engine.add(PROMPT, sampling, sink=pieces.append)
    engine.run_until_idle()
    shown = [*spell(TOKENS[:2]), "", "", stop if include else ""]
    assert [piece.text for piece in pieces] == shown
    assert [piece.finish_reason for piece in pieces] == [None] * 4 + ["stop"]
    assert [piece.stop_reason for piece in pieces] == [None] * 4 + [stop]


@pytest.mark.parametrize("include", [False, True])
def test_text_held_back_before_a_stop_token_is_shown(include: bool):
    """What had begun a stop string is text after all when a token ends the request."""
    sampling = params(
        9,
        stop=[spell(TOKENS[1:2]) + "?"],
        stop_token_ids=[TOKENS[2]],
        include_stop_str_in_output=include,
    )
    request = make_and_run(sampling)
    assert request.output.text == spell(TOKENS[: 3 if include else 2])
    assert request.stop_reason == TOKENS[2]


def test_a_stop_token_ends_a_request_without_text():
    request = make_and_run(params(9, detokenize=False, stop_token_ids=[TOKENS[2]]))
    assert request.output_token_ids == TOKENS[:3]
    assert request.stop_reason == TOKENS[2]


def test_an_end_of_sequence_token_that_is_ignored_is_text():
    """It is for the tokenizer to leave special tokens out."""
    request = make_and_run(SamplingParams(max_tokens=5, ignore_eos=True), eos=(TOKENS[3],))
    assert request.output.text == spell(TOKENS[:5])
    assert request.finish_reason is FinishReason.LENGTH


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
