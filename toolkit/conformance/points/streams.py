"""Streams of chat completions: the order and the shape of the chunks."""

from __future__ import annotations

from typing import Any

from openai.types.chat import ChatCompletionChunk

from toolkit.conformance.check import Points
from toolkit.conformance.probe import Probe, Stream
from toolkit.conformance.shapes import require_keys, require_shape
from toolkit.conformance.verdicts import NotSupported, expect

__all__ = ["POINTS"]

POINTS = Points("streams")
_USAGE = {"include_usage": True}


def _with_choices(stream: Stream) -> list[dict[str, Any]]:
    """Return the chunks that hold choices: all but the one that holds the usage."""
    chunks = [chunk for chunk in stream.chunks if chunk["choices"]]
    expect(chunks, "no chunk has choices", "\n".join(stream.payloads))
    return chunks


@POINTS.must(
    "shape",
    what="every chunk has OpenAI's fields with OpenAI's types",
    why="openai: ChatCompletionChunk; a chunk without choices is an IndexError in many clients",
)
def _shape(probe: Probe) -> None:
    for chunk in probe.chat_stream(stream_options=_USAGE).chunks:
        require_keys(chunk, "id", "object", "created", "model", "choices")
        require_shape(probe, ChatCompletionChunk, chunk)
        for choice in chunk["choices"]:
            require_keys(choice, "index", "delta")
            expect(isinstance(choice["delta"], dict), "delta is no object", chunk)


@POINTS.must(
    "finish_reason_key",
    what="every choice of every chunk has the key finish_reason, null until the end",
    why="clients read chunk.choices[0].finish_reason without a default (vllm issue 19650)",
)
def _finish_key(probe: Probe) -> None:
    for chunk in _with_choices(probe.chat_stream()):
        require_keys(chunk["choices"][0], "finish_reason")


@POINTS.must(
    "media_type", what="the media type is text/event-stream", why="EventSource and openai check it"
)
def _media_type(probe: Probe) -> None:
    media_type = probe.chat_stream().headers.get("content-type", "")
    expect(media_type.startswith("text/event-stream"), f"it is {media_type!r}")


@POINTS.must(
    "done", what="the stream ends with data: [DONE]", why="clients without a type wait for it"
)
def _done(probe: Probe) -> None:
    stream = probe.chat_stream()
    expect(stream.is_done, "the last event is another one", "\n".join(stream.payloads[-2:]))
    expect(stream.payloads.count("[DONE]") == 1, "[DONE] more than once", stream.payloads[-3:])


@POINTS.must(
    "role_first",
    what="the first chunk of a choice says role assistant, and no other does",
    why="LangChain picks the class of the message from the first chunk",
)
def _role_first(probe: Probe) -> None:
    parts = probe.chat_stream().choices()
    expect(parts[0]["delta"].get("role") == "assistant", "no role in the first chunk", parts[0])
    for part in parts[1:]:
        role = part["delta"].get("role")
        expect(role in (None, "assistant", ""), f"a later chunk says role {role!r}", part)
        if role:
            probe.note("later chunks repeat the role")


@POINTS.must(
    "one_identity",
    what="all chunks share id, created and model",
    why="clients put the message together by id",
)
def _identity(probe: Probe) -> None:
    chunks = probe.chat_stream(stream_options=_USAGE).chunks
    for key in ("id", "created", "model", "object"):
        values = {chunk[key] for chunk in chunks}
        expect(len(values) == 1, f"{key} changes within a stream", sorted(map(str, values)))
    expect(chunks[0]["object"] == "chat.completion.chunk", "another object", chunks[0])


@POINTS.must(
    "one_finish",
    what="a choice has one finish_reason, in its last chunk",
    why="clients stop to read a choice at its reason",
)
def _one_finish(probe: Probe) -> None:
    parts = probe.chat_stream().choices()
    reasons = [part.get("finish_reason") for part in parts]
    expect(reasons[-1] in ("stop", "length"), f"the last one is {reasons[-1]!r}", parts[-1])
    expect(not any(reasons[:-1]), "a reason before the end", reasons)


@POINTS.should(
    "empty_last_delta",
    what="the chunk with finish_reason has no content",
    why="clients that close the message at the reason lose the text (vllm issues 27572, 35705)",
)
def _empty_last(probe: Probe) -> None:
    last = probe.chat_stream().choices()[-1]
    expect(not last["delta"].get("content"), "content beside the finish_reason", last)


@POINTS.should(
    "no_empty_chunks",
    what="a chunk between the first and the last has text",
    why="empty chunks count as tokens in benchmarks, and flicker in user interfaces",
)
def _no_empty(probe: Probe) -> None:
    for part in probe.chat_stream().choices()[1:-1]:
        said = [value for key, value in part["delta"].items() if key != "role" and value]
        expect(said or part.get("logprobs"), "a chunk says nothing", part)


@POINTS.must(
    "no_usage_unasked",
    what="no usage unless it was asked for",
    why="a chunk with empty choices is an IndexError for clients that did not ask for it",
)
def _no_usage(probe: Probe) -> None:
    for chunk in probe.chat_stream().chunks:
        expect(chunk["choices"], "a chunk without choices that nobody asked for", chunk)
        expect(not chunk.get("usage"), "usage that nobody asked for", chunk)


@POINTS.must(
    "usage_once",
    what="usage comes once when it was asked for, last, with choices []",
    why="LangChain adds up every usage it sees: twice is double (litellm PR 25410)",
)
def _usage_once(probe: Probe) -> None:
    chunks = probe.chat_stream(optional="stream_options", stream_options=_USAGE).chunks
    holders = [chunk for chunk in chunks if chunk.get("usage")]
    expect(holders, "no usage", chunks[-1])
    expect(len(holders) == 1, f"usage in {len(holders)} chunks", holders)
    expect(holders[0] is chunks[-1], "usage before the end", holders[0])
    expect(holders[0]["choices"] == [], "choices beside the usage", holders[0])
    usage = holders[0]["usage"]
    total = usage["prompt_tokens"] + usage["completion_tokens"]
    expect(usage["total_tokens"] == total, "the counts do not add up", usage)


@POINTS.should(
    "continuous_usage",
    what="continuous_usage_stats puts the usage so far into every chunk",
    why="vLLM's benchmark client and dashboards count tokens by it",
)
def _continuous(probe: Probe) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = probe.chat_stream(optional="continuous_usage_stats", stream_options=options)
    chunks = _with_choices(stream)
    counts = [(chunk.get("usage") or {}).get("completion_tokens") for chunk in chunks]
    if not any(count is not None for count in counts):
        raise NotSupported("continuous_usage_stats has no effect")
    known = [count for count in counts if count is not None]
    expect(len(known) == len(counts), "a chunk has no usage", "\n".join(stream.payloads))
    expect(known == sorted(known), "the count goes down", counts)


@POINTS.must(
    "n",
    what="n=2 streams both choices, each with role, end and index",
    why="openai: stream helper accumulates by index",
)
def _n(probe: Probe) -> None:
    stream = probe.chat_stream(optional="n", n=2, temperature=1.0, stream_options=_USAGE)
    for index in (0, 1):
        parts = stream.choices(index)
        expect(parts, f"no chunk of choice {index}", "\n".join(stream.payloads))
        expect(parts[0]["delta"].get("role") == "assistant", "no role first", parts[0])
        reasons = [part["finish_reason"] for part in parts if part["finish_reason"]]
        expect(len(reasons) == 1, f"choice {index} ends {len(reasons)} times", parts)


@POINTS.should(
    "same_as_whole",
    what="at temperature 0 the stream has the text of the whole answer",
    why="turning streaming on must not change what is said",
)
def _same_text(probe: Probe) -> None:
    whole = [probe.chat(temperature=0)["choices"][0]["message"]["content"] for _ in range(2)]
    if whole[0] != whole[1]:
        raise NotSupported("two whole answers at temperature 0 differ as well")
    streamed = probe.chat_stream(temperature=0).text()
    expect(streamed == whole[0], f"whole: {whole[0]!r}, streamed: {streamed!r}")
