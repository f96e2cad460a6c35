"""Log-probabilities of both endpoints."""

from __future__ import annotations

from typing import Any

from openai.types import Completion
from openai.types.chat import ChatCompletion

from toolkit.conformance.check import Points
from toolkit.conformance.probe import Probe
from toolkit.conformance.shapes import require_keys, require_shape
from toolkit.conformance.verdicts import NotSupported, expect

__all__ = ["POINTS"]

POINTS = Points("logprobs")
# Characters of two to four bytes, which tokenizers cut.
_MULTI_BYTE = [
    {"role": "user", "content": "Repeat after me: 日本語 naïve \U0001f600\U0001f680 ¿qué?"}
]


def _chat_entries(probe: Probe, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    answer = probe.chat(optional="logprobs", logprobs=True, temperature=0, **fields)
    logprobs = answer["choices"][0].get("logprobs")
    expect(isinstance(logprobs, dict), "logprobs is no object", answer)
    require_keys(logprobs, "content")
    return answer, logprobs["content"]


def _expect_joined(entries: list[dict[str, Any]], text: str) -> None:
    if any(entry.get("bytes") is None for entry in entries):
        raise NotSupported("the entries have no bytes")
    joined = b"".join(bytes(entry["bytes"]) for entry in entries).decode(errors="replace")
    expect(joined == text, f"the bytes say {joined!r}, the text {text!r}", entries[:3])


@POINTS.must(
    "chat",
    what="logprobs.content has an entry per token, with bytes and the most likely others",
    why="openai: ChoiceLogprobs; evaluation harnesses",
)
def _chat(probe: Probe) -> None:
    answer, entries = _chat_entries(probe, top_logprobs=3)
    require_shape(probe, ChatCompletion, answer)
    expect(entries, "no entries", answer)
    spent = answer["usage"]["completion_tokens"]
    expect(spent - 1 <= len(entries) <= spent, f"{len(entries)} entries, {spent} tokens", answer)
    for entry in entries:
        require_keys(entry, "token", "logprob", "bytes", "top_logprobs")
        expect(entry["logprob"] <= 0, "a probability above 1", entry)
        others = [other["logprob"] for other in entry["top_logprobs"]]
        expect(len(others) == 3, f"{len(others)} of 3 top_logprobs", entry)
        expect(others == sorted(others, reverse=True), "not the most likely first", entry)


@POINTS.must(
    "top_zero",
    what="logprobs without top_logprobs, or with 0, gives the chosen tokens alone",
    why="0 is a valid count (vllm issue 4795)",
)
def _top_zero(probe: Probe) -> None:
    for fields in ({}, {"top_logprobs": 0}):
        answer, entries = _chat_entries(probe, **fields)
        expect(entries, "no entries", answer)
        expect(not any(entry["top_logprobs"] for entry in entries), "others, unasked", entries[0])


@POINTS.must(
    "bytes",
    what="the joined bytes of all entries are the bytes of the text",
    why="characters of several tokens: whoever highlights tokens (vllm issue 27300)",
)
def _bytes(probe: Probe) -> None:
    answer, entries = _chat_entries(probe, messages=_MULTI_BYTE, max_tokens=32)
    _expect_joined(entries, answer["choices"][0]["message"]["content"])


@POINTS.must(
    "stream",
    what="the entries of a stream's chunks join to the stream's text",
    why="the same, live",
)
def _stream(probe: Probe) -> None:
    stream = probe.chat_stream(
        optional="logprobs", logprobs=True, messages=_MULTI_BYTE, temperature=0, max_tokens=32
    )
    entries = [
        entry
        for part in stream.choices()
        for entry in (part.get("logprobs") or {}).get("content") or []
    ]
    expect(entries, "no entries in any chunk", "\n".join(stream.payloads[:3]))
    _expect_joined(entries, stream.text())


@POINTS.should(
    "off_by_default",
    what="no logprobs unless asked for",
    why="they are ten times the size of the text",
)
def _off(probe: Probe) -> None:
    choice = probe.chat()["choices"][0]
    expect(not choice.get("logprobs"), "logprobs, unasked", choice)


@POINTS.must(
    "completions",
    what="text completions give tokens, token_logprobs, top_logprobs and text_offset of one length",
    why="lm-evaluation-harness scores answers by them",
)
def _completions(probe: Probe) -> None:
    answer = probe.completion(optional="logprobs", logprobs=2, temperature=0)
    require_shape(probe, Completion, answer)
    (choice,) = answer["choices"]
    logprobs = choice["logprobs"]
    require_keys(logprobs, "tokens", "token_logprobs", "top_logprobs", "text_offset")
    lengths = {key: len(logprobs[key]) for key in ("tokens", "token_logprobs", "text_offset")}
    expect(len(set(lengths.values())) == 1, f"of different lengths: {lengths}", logprobs)
    expect(logprobs["tokens"], "no entries", answer)
    offsets = logprobs["text_offset"]
    expect(offsets == sorted(offsets), "text_offset goes back", offsets)
    expect(all(value <= 0 for value in logprobs["token_logprobs"]), "above 1", logprobs)
    for token, offset in zip(logprobs["tokens"], offsets, strict=True):
        is_text = token.isascii() and "\\" not in token and token
        if is_text and offset + len(token) <= len(choice["text"]):
            found = choice["text"][offset : offset + len(token)]
            expect(found == token, f"at {offset} is {found!r}, not {token!r}", choice)
