"""Stop strings, stop tokens and the bytes of characters through the bundled model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from toolkit import LLM, SamplingParams
from toolkit.request import CompletionOutput

CONVERSATION = [{"role": "user", "content": "What is continuous batching?"}]
LONG = 24


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(max_model_len=256, max_num_seqs=8) as made:
        yield made


@pytest.fixture(scope="module")
def answer(llm: LLM) -> CompletionOutput:
    """What is said without any stop: the tests below cut it."""
    return ask(llm)


def ask(llm: LLM, **params: Any) -> CompletionOutput:
    sampling = SamplingParams(**{"temperature": 0, "max_tokens": LONG} | params)
    return llm.chat(CONVERSATION, sampling)[0].outputs[0]


def saying(token_ids: Sequence[int]) -> Callable[..., Any]:
    """A processor under which the model writes these tokens, whatever it wanted."""

    def say(logits: Any, at: Any) -> Any:
        logits[:] = -float("inf")
        logits[token_ids[len(at.output_token_ids)]] = 0.0
        return logits

    return say


def say(llm: LLM, token_ids: Sequence[int], **params: Any) -> CompletionOutput:
    return ask(llm, logits_processors=[saying(token_ids)], max_tokens=len(token_ids), **params)


def pieces_of(llm: LLM, token_ids: Sequence[int], **params: Any) -> list[str]:
    sampling = SamplingParams(
        temperature=0,
        max_tokens=len(token_ids),
        logits_processors=[saying(token_ids)],
        **params,
    )
    return [piece.text for piece in llm.stream(CONVERSATION, sampling)]


def byte_ids(llm: LLM, data: bytes) -> list[int]:
    """One token for each byte."""
    token_bytes = llm.tokenizer.token_bytes
    ids = {token_bytes(token_id): token_id for token_id in range(len(llm.tokenizer))}
    return [ids[bytes([byte])] for byte in data]


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("at", range(2, 14, 3))
def test_a_stop_string_across_a_token_edge_cuts_the_text(
    llm: LLM, answer: CompletionOutput, at: int, include: bool
) -> None:
    edge = len(llm.tokenizer.decode(answer.token_ids[:at]))
    stop = answer.text[edge - 2 : edge + 2]
    start = answer.text.index(stop)
    output = ask(llm, stop=stop, include_stop_str_in_output=include)
    assert output.text == answer.text[: start + len(stop) if include else start]
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)
    assert output.token_ids == answer.token_ids[: len(output.token_ids)]
    assert len(llm.tokenizer.decode(output.token_ids[:-1])) < start + len(stop)


def test_streamed_pieces_never_show_what_a_stop_string_cuts_off(
    llm: LLM, answer: CompletionOutput
) -> None:
    stop = answer.text[7:16]
    assert stop in answer.text
    sampling = SamplingParams(temperature=0, max_tokens=LONG, stop=["no such text", stop])
    pieces = list(llm.stream(CONVERSATION, sampling))
    assert "".join(piece.text for piece in pieces) == answer.text[: answer.text.index(stop)]
    assert (pieces[-1].finish_reason, pieces[-1].stop_reason) == ("stop", stop)


def test_samples_stop_on_their_own(llm: LLM) -> None:
    sampling = SamplingParams(n=4, seed=3, temperature=4, max_tokens=LONG)
    whole = llm.chat(CONVERSATION, sampling)[0].outputs
    assert len({sample.text for sample in whole}) == 4
    stopping = SamplingParams(n=4, seed=3, temperature=4, max_tokens=LONG, stop=["e", "an"])
    stopped = llm.chat(CONVERSATION, stopping)[0].outputs
    for sample, cut in zip(whole, stopped, strict=True):
        found = [at for at in map(sample.text.find, ("e", "an")) if at >= 0]
        assert cut.text == sample.text[: min(found, default=None)]
        assert cut.finish_reason == ("stop" if found else sample.finish_reason)


def test_a_stop_token_is_named_and_stays_out_of_the_text(
    llm: LLM, answer: CompletionOutput
) -> None:
    stop_id = answer.token_ids[5]
    at = answer.token_ids.index(stop_id)
    output = ask(llm, stop_token_ids=[stop_id])
    assert output.token_ids == answer.token_ids[: at + 1]
    assert output.text == llm.tokenizer.decode(answer.token_ids[:at])
    assert (output.finish_reason, output.stop_reason) == ("stop", stop_id)
    kept = ask(llm, stop_token_ids=[stop_id], include_stop_str_in_output=True)
    assert kept.text == llm.tokenizer.decode(answer.token_ids[: at + 1])


@pytest.mark.parametrize("skip", [True, False])
def test_an_end_of_sequence_token_ends_the_text_before_it(llm: LLM, skip: bool) -> None:
    end = min(llm.tokenizer.eos_token_ids)
    ids = [*llm.tokenizer.encode("It is", add_special_tokens=False), end, *byte_ids(llm, b"!")]
    output = say(llm, ids, skip_special_tokens=skip)
    assert (output.text, output.finish_reason, output.stop_reason) == ("It is", "stop", None)
    ignoring = say(llm, ids, skip_special_tokens=skip, ignore_eos=True)
    name = "" if skip else llm.tokenizer.token_text(end)
    assert (ignoring.text, ignoring.finish_reason) == (f"It is{name}!", "length")


@pytest.mark.parametrize(
    ("min_tokens", "text"), [(0, "a"), (2, "a"), (3, "a.\nb"), (5, "a.\nb"), (6, "a.\nb.\ncd")]
)
def test_a_stop_string_complete_within_min_tokens_does_not_count(
    llm: LLM, min_tokens: int, text: str
) -> None:
    """The stop string is complete with the third token, and again with the sixth."""
    ids = byte_ids(llm, b"a.\nb.\ncd")
    assert say(llm, ids, stop=[".\n"], min_tokens=min_tokens).text == text


def test_the_end_of_sequence_is_not_drawn_within_min_tokens(llm: LLM) -> None:
    unbound = ask(llm, max_tokens=100)
    assert unbound.finish_reason == "stop"
    longer = ask(llm, max_tokens=100, min_tokens=len(unbound.token_ids) + 3)
    assert len(longer.token_ids) > len(unbound.token_ids) + 3
    assert longer.token_ids[: len(unbound.token_ids) - 1] == unbound.token_ids[:-1]
    assert llm.tokenizer.eos_token_ids.isdisjoint(longer.token_ids[:-1])


def test_what_had_begun_a_stop_string_is_shown_at_the_last_token(llm: LLM) -> None:
    ids = byte_ids(llm, b"abc")
    assert pieces_of(llm, ids, stop=["bcd"]) == ["a", "", "bc"]


def test_characters_come_whole_and_bytes_that_are_none_as_replacements(llm: LLM) -> None:
    ids = byte_ids(llm, "é🙂".encode() + b"\xff" + "日".encode()[:2])
    assert pieces_of(llm, ids) == [*["", "é"], *["", "", "", "🙂"], "\ufffd", *["", "\ufffd"]]
    assert say(llm, ids).text == llm.tokenizer.backend.decode(ids) == "é🙂\ufffd\ufffd"


def test_a_stop_string_of_cut_characters_is_found(llm: LLM) -> None:
    ids = byte_ids(llm, "a🙂é日本".encode())
    output = say(llm, ids, stop=["é日"])
    assert (output.text, output.stop_reason) == ("a🙂", "é日")
    assert len(output.token_ids) == 1 + 4 + 2 + 3


def test_without_text_there_are_only_tokens(llm: LLM, answer: CompletionOutput) -> None:
    output = ask(llm, detokenize=False)
    assert (output.text, output.token_ids) == ("", answer.token_ids)
    stopped = ask(llm, detokenize=False, stop_token_ids=[answer.token_ids[5]])
    assert stopped.stop_reason == answer.token_ids[5]
