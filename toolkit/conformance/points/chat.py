"""Whole chat answers."""

from __future__ import annotations

import time

from openai.types.chat import ChatCompletion

from toolkit.conformance.check import Points
from toolkit.conformance.probe import Probe
from toolkit.conformance.shapes import require_keys, require_shape
from toolkit.conformance.verdicts import expect

__all__ = ["POINTS"]

POINTS = Points("chat")
_DAY_S = 86400


@POINTS.must(
    "shape",
    what="an answer has OpenAI's fields with OpenAI's types",
    why="openai, LangChain and every typed client parse it",
)
def _shape(probe: Probe) -> None:
    answer = probe.chat()
    require_keys(answer, "id", "object", "created", "model", "choices", "usage")
    require_shape(probe, ChatCompletion, answer)
    (choice,) = answer["choices"]
    require_keys(choice, "index", "message", "finish_reason")
    require_keys(choice["message"], "role", "content")
    expect(choice["message"]["role"] == "assistant", "the role is not assistant", answer)


@POINTS.must(
    "content", what="content is text", why="LangChain: AIMessage(content=None) raises in chains"
)
def _content(probe: Probe) -> None:
    answer = probe.chat()
    message = answer["choices"][0]["message"]
    expect(isinstance(message["content"], str), "content is no text", answer)
    expect(not message.get("tool_calls"), "tool calls, though no tools were offered", answer)


@POINTS.must("ids", what="each answer has an id of its own", why="logs and tracing join by it")
def _ids(probe: Probe) -> None:
    first, second = probe.chat(), probe.chat()
    expect(first["id"] and first["id"] != second["id"], "two answers share an id", second)
    if not first["id"].startswith("chatcmpl-"):
        probe.note(f"OpenAI's ids begin with chatcmpl-, this one is {first['id']!r}")


@POINTS.must("created", what="created is now, in seconds", why="OpenAI's spec: a Unix time stamp")
def _created(probe: Probe) -> None:
    answer = probe.chat()
    age_s = time.time() - answer["created"]
    expect(abs(age_s) < _DAY_S, f"created is {age_s:.0f} s ago", answer)


@POINTS.should(
    "fingerprint",
    what="system_fingerprint says what computed the answer",
    why="whoever repeats a seed sees when the server changed",
)
def _fingerprint(probe: Probe) -> None:
    answer = probe.chat()
    expect(answer.get("system_fingerprint"), "no system_fingerprint", answer)


@POINTS.must(
    "usage",
    what="usage has the three counts, and they add up",
    why="LangChain: usage_metadata; every cost meter",
)
def _usage(probe: Probe) -> None:
    answer = probe.chat(max_tokens=4)
    usage = answer["usage"]
    counts = [usage[f"{kind}_tokens"] for kind in ("prompt", "completion", "total")]
    expect(all(isinstance(count, int) for count in counts), "a count is no integer", usage)
    expect(counts[0] + counts[1] == counts[2], "prompt and completion are not the total", usage)
    expect(counts[0] > 0 and counts[1] <= 4, "the counts do not fit the call", answer)


@POINTS.must(
    "length",
    what='an answer that max_tokens cuts says finish_reason "length"',
    why="openai: parse() raises LengthFinishReasonError; agents go on with what was cut",
)
def _length(probe: Probe) -> None:
    answer = probe.chat(max_tokens=1)
    (choice,) = answer["choices"]
    spent = answer["usage"]["completion_tokens"]
    if choice["finish_reason"] == "stop":
        expect(spent <= 1, "more tokens than max_tokens allows", answer)
        return  # the model's first token ended the answer
    expect(choice["finish_reason"] == "length", "another reason", answer)
    expect(spent == 1, f"max_tokens=1, but {spent} tokens were spent", answer)


@POINTS.must(
    "max_completion_tokens",
    what="max_completion_tokens limits the answer, as max_tokens does",
    why="newer versions of LangChain and openai send this name (langchain issue 29954)",
)
def _max_completion_tokens(probe: Probe) -> None:
    body = probe.chat_body({"max_completion_tokens": 2, "temperature": 0})
    del body["max_tokens"]
    answer = probe.ok(probe.post("/v1/chat/completions", body))
    expect(answer["usage"]["completion_tokens"] <= 2, "the limit had no effect", answer)


@POINTS.must(
    "n", what="n=3 gives three choices", why="LangChain: generate with n; self-consistency"
)
def _n(probe: Probe) -> None:
    answer = probe.chat(optional="n", n=3, temperature=1.0)
    require_shape(probe, ChatCompletion, answer)
    indices = sorted(choice["index"] for choice in answer["choices"])
    expect(indices == [0, 1, 2], f"the choices are numbered {indices}", answer)
    reasons = [choice["finish_reason"] for choice in answer["choices"]]
    expect(all(reasons), "a choice has no finish_reason", answer)
