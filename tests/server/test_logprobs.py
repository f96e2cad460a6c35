"""Log-probabilities: both shapes, and bytes that are the bytes of the text."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection
from typing import Any

import httpx
import openai
import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from toolkit.llm import LLM
from toolkit.request import Logprob, OutputPiece
from toolkit.server.logprobs import VisibleTokens, completion_entries
from toolkit.text import Tokenizer

MESSAGES = [{"role": "user", "content": "Hello world"}]
# So hot that any byte may follow any other: characters in pieces, and bytes that form none.
ASKED = {"model": "tiny", "messages": MESSAGES, "max_tokens": 40, "temperature": 20}


def joined(content: list) -> str:
    """What the bytes of all entries spell; like the tokenizer, with U+FFFD for what is no UTF-8."""
    return b"".join(bytes(entry.bytes) for entry in content).decode(errors="replace")


@pytest.mark.parametrize("seed", range(4))
def test_joined_bytes_are_the_text(client: openai.OpenAI, seed: int) -> None:
    answer = client.chat.completions.create(**ASKED, seed=seed, logprobs=True, top_logprobs=2)
    (choice,) = answer.choices
    assert choice.logprobs is not None
    assert joined(choice.logprobs.content) == choice.message.content


@pytest.mark.parametrize("seed", range(4))
def test_every_chunk_carries_the_logprobs_of_its_own_text(client: openai.OpenAI, seed: int) -> None:
    content = []
    text = ""
    for chunk in client.chat.completions.create(**ASKED, seed=seed, logprobs=True, stream=True):
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        content += choice.logprobs.content if choice.logprobs else []
    assert joined(content) == text
    whole = client.chat.completions.create(**ASKED, seed=seed, logprobs=True).choices[0]
    assert whole.logprobs is not None
    assert [e.token for e in content] == [e.token for e in whole.logprobs.content]


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_a_cut_off_stop_string_have_no_entry(client: openai.OpenAI, stream: bool) -> None:
    asked = {**ASKED, "temperature": 0, "logprobs": True}
    text = client.chat.completions.create(**asked).choices[0].message.content
    assert text is not None
    stop = text[8:11]
    answer = client.chat.completions.create(**asked, stop=stop, stream=stream)
    if stream:
        content = [
            e for chunk in answer if (found := chunk.choices[0].logprobs) for e in found.content
        ]
    else:
        content = answer.choices[0].logprobs.content
    assert joined(content) == text[: text.index(stop)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(("stop", "text"), [("ov", " l"), ("ve l", " lo"), ("e love", " lov")])
def test_a_token_that_a_stop_string_cuts_has_the_bytes_that_are_left(
    client: openai.OpenAI, llm: LLM, stop: str, text: str, include: bool, stream: bool
) -> None:
    (love,) = llm.tokenizer.encode(" love", add_special_tokens=False)
    asked = {**ASKED, "temperature": 0, "logit_bias": {str(love): 100}, "logprobs": True}
    answer = client.chat.completions.create(
        **asked, stop=stop, stream=stream, extra_body={"include_stop_str_in_output": include}
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    content = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    shown = "".join(
        (choice.delta.content or "") if stream else choice.message.content for choice in choices
    )
    assert joined(content) == shown == text + (stop if include else "")
    assert {entry.token for entry in content} == {" love"}


def test_top_logprobs_are_the_most_likely_tokens_in_order(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASKED, seed=0, logprobs=True, top_logprobs=3)
    assert answer.choices[0].logprobs is not None
    for entry in answer.choices[0].logprobs.content:
        top = [candidate.logprob for candidate in entry.top_logprobs]
        assert len(top) == 3
        assert top == sorted(top, reverse=True)
        assert entry.logprob <= top[0]


def test_logprobs_without_top_logprobs_are_allowed(client: openai.OpenAI) -> None:
    asked = {**ASKED, "max_tokens": 2, "seed": 0}
    answer = client.chat.completions.create(**asked, logprobs=True)
    assert answer.choices[0].logprobs is not None
    assert [entry.top_logprobs for entry in answer.choices[0].logprobs.content] == [[], []]


FORMS = {
    "choice": {"structured_outputs": {"choice": ["yes", "no"]}},
    "regex": {"structured_outputs": {"regex": "[0-9]{3} love"}},
    "schema": {"guided_json": {"type": "object", "properties": {"a": {"type": "boolean"}}}},
    "ended by EOS": {"structured_outputs": {"regex": "[ab]{1,9}"}},
    "with its stop": {
        "structured_outputs": {"choice": ["yes", "no"]},
        "include_stop_str_in_output": True,
    },
    "which is a stop string": {"structured_outputs": {"choice": ["yes"]}, "stop": ["es"]},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_the_token_that_completes_a_form_has_its_entry(
    http: httpx.Client, path: str, form: str, stream: bool
) -> None:
    is_chat = path.startswith("/v1/chat")
    asked: dict[str, Any] = (
        {"messages": MESSAGES, "logprobs": True} if is_chat else {"prompt": "Hello", "logprobs": 1}
    )
    answer = http.post(path, json={**asked, "seed": 1, **FORMS[form], "stream": stream})
    assert answer.status_code == 200, answer.text
    if stream:
        events = answer.text.split("\n\n")
        parts = [json.loads(each.removeprefix("data: ")) for each in events[:-2]]
    else:
        parts = [answer.json()]
    choices = [choice for part in parts for choice in part["choices"]]
    found = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    assert choices[-1]["finish_reason"] == "stop"
    if is_chat:
        text = "".join(
            choice.get("delta", choice.get("message")).get("content") or "" for choice in choices
        )
        spelled = b"".join(bytes(e["bytes"]) for part in found for e in part["content"]).decode()
    else:
        text = "".join(choice["text"] for choice in choices)
        tokens = [token for part in found for token in part["tokens"]]
        spelled = "".join(tokens)
        if form == "which is a stop string":  # a token's name is whole, even if its text was cut
            assert spelled.startswith(text)
            return
    assert spelled == text


@pytest.mark.parametrize("stream", [False, True])
def test_completions_have_their_own_shape(client: openai.OpenAI, stream: bool) -> None:
    answer = client.completions.create(
        model="tiny",
        prompt="Hello",
        seed=1,
        temperature=20,
        max_tokens=20,
        logprobs=2,
        stream=stream,
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    text = "".join(choice.text for choice in choices)
    tokens = [token for choice in choices for token in choice.logprobs.tokens]
    offsets = [offset for choice in choices for offset in choice.logprobs.text_offset]
    assert len(tokens) == len(offsets) == 20
    for token, start, end in zip(tokens, offsets, [*offsets[1:], len(text)], strict=True):
        if not token.startswith("\\x"):
            assert text[start:end].strip("\N{REPLACEMENT CHARACTER}") == token
    for choice in choices:
        for token, logprob, top in zip(
            choice.logprobs.tokens,
            choice.logprobs.token_logprobs,
            choice.logprobs.top_logprobs,
            strict=True,
        ):
            assert top[token] == logprob
            assert len(top) in (2, 3)


def sentencepiece_tokenizer() -> Tokenizer:
    """Pieces as in Llama 2: a low bar for the space, single bytes as <0x..>."""
    vocab = {"<unk>": 0, "▁Hello": 1, "▁wor": 2, "ld": 3, "<0xC3>": 4, "<0xA9>": 5, "▁": 6}
    backend = RustTokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Prepend("▁")
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    backend.decoder = decoders.Sequence(steps)
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))


def test_sentencepiece_tokens_have_their_spaces_and_bytes() -> None:
    tokenizer = sentencepiece_tokenizer()
    token_bytes = tokenizer.token_bytes
    token_ids = [1, 2, 3, 4, 5]
    own = [token_bytes.at_start(1), *map(token_bytes, token_ids[1:])]
    assert own == [b"Hello", b" wor", b"ld", b"\xc3", b"\xa9"]
    assert b"".join(own).decode() == tokenizer.decode(token_ids) == "Hello worldé"


def piece(token_id: int, logprob: float = -1.0, *, text: str, ends: str | None = None):
    return OutputPiece(
        request_id="req-0",
        index=0,
        text=text,
        token_ids=(token_id,),
        logprobs=[{token_id: Logprob(logprob)}],
        finish_reason=ends,
    )


def test_a_token_waits_until_its_text_is_sent() -> None:
    visible = VisibleTokens(sentencepiece_tokenizer().spelling())
    first = visible.take(piece(1, text="Hello"))
    half = visible.take(piece(4, text=""))
    rest = visible.take(piece(5, text="é", ends="length"))
    assert [entry.token_id for entry in (*first, *half, *rest)] == [1, 4, 5]
    assert half == []
    assert [entry.start for entry in rest] == [5, 5]


def test_a_token_that_is_cut_by_a_stop_string_has_the_bytes_before_it() -> None:
    visible = VisibleTokens(sentencepiece_tokenizer().spelling())
    assert visible.take(piece(1, text="Hel")) == []  # "lo" could begin the stop string "lo wor"
    (entry,) = visible.take(
        dataclasses.replace(piece(2, text="", ends="stop"), stop_reason="lo wor")
    )
    assert entry.bytes == b"Hel"


@pytest.mark.parametrize(("hidden", "num_entries"), [({5}, 1), ((), 2)])
def test_a_stop_token_has_an_entry_if_the_text_has_it(
    hidden: Collection[int], num_entries: int
) -> None:
    """Even where its byte would complete the text's last character."""
    visible = VisibleTokens(sentencepiece_tokenizer().spelling(), hidden_stop_ids=hidden)
    assert visible.take(piece(4, text="")) == []
    shown = "\N{REPLACEMENT CHARACTER}" if hidden else "é"
    entries = visible.take(dataclasses.replace(piece(5, text=shown, ends="stop"), stop_reason=5))
    assert len(entries) == num_entries
    assert b"".join(entry.bytes for entry in entries).decode(errors="replace") == shown


def test_a_token_that_cannot_be_drawn_has_a_finite_logprob(llm: LLM) -> None:
    visible = VisibleTokens(llm.tokenizer.spelling())
    shown = llm.tokenizer.token_text(70)
    entries = visible.take(piece(70, -math.inf, text=shown, ends="length"))
    assert completion_entries(entries, 0, llm.tokenizer.token_bytes).token_logprobs == [-9999.0]
