"""Tool calls, whole and in streams."""

from __future__ import annotations

from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from toolkit.conformance.check import Points
from toolkit.conformance.json_checks import require_complete, require_valid
from toolkit.conformance.probe import CHAT, Probe
from toolkit.conformance.shapes import require_keys, require_shape
from toolkit.conformance.verdicts import expect

__all__ = ["POINTS"]

POINTS = Points("tools")
# Every value is bounded, so that a model of random weights can finish it too.
_WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Oslo", "Paris"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
_TIME: dict[str, Any] = {
    "type": "object",
    "properties": {"zone": {"type": "string", "enum": ["CET", "UTC"]}},
    "required": ["zone"],
    "additionalProperties": False,
}
_SCHEMAS = {"get_weather": _WEATHER, "get_time": _TIME}
_TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in _SCHEMAS.items()
]
_MESSAGES = [{"role": "user", "content": "Weather in Paris, 3 days?"}]
_NAMED = {"type": "function", "function": {"name": "get_time"}}


def _body(probe: Probe, choice: Any, **fields: Any) -> dict[str, Any]:
    """Return a call without a limit: a limit may cut the arguments."""
    body = {"model": probe.model, "messages": _MESSAGES, "tools": _TOOLS, **fields}
    return body if choice is None else {**body, "tool_choice": choice}


def _call(probe: Probe, choice: Any, **fields: Any) -> dict[str, Any]:
    answer = probe.ok(
        probe.post(CHAT, _body(probe, choice, **fields)), optional=f"tool_choice={choice!r}"
    )
    require_shape(probe, ChatCompletion, answer)
    return dict(answer["choices"][0])


def _expect_calls(calls: list[dict[str, Any]] | None, names: set[str]) -> None:
    expect(calls, "no tool call")
    for call in calls or []:
        require_keys(call, "id", "type", "function")
        expect(call["id"] and call["type"] == "function", "no id, or another type", call)
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        expect(name in names, f"{name!r} is none of {sorted(names)}", call)
        expect(isinstance(arguments, str), "the arguments are no text", call)
        require_valid(arguments, _SCHEMAS[name])


@POINTS.must(
    "required",
    what='tool_choice "required" gives a valid call of a declared tool',
    why="LangChain: bind_tools(tool_choice='any'); agents that must act",
)
def _required(probe: Probe) -> None:
    choice = _call(probe, "required")
    require_complete(choice["finish_reason"])
    _expect_calls(choice["message"].get("tool_calls"), set(_SCHEMAS))
    expect(choice["finish_reason"] == "tool_calls", "another finish_reason", choice)


@POINTS.must(
    "named",
    what="a named tool is the one that is called",
    why="LangChain: with_structured_output(method='function_calling')",
)
def _named(probe: Probe) -> None:
    choice = _call(probe, _NAMED, parallel_tool_calls=False)
    require_complete(choice["finish_reason"])
    calls = choice["message"].get("tool_calls")
    _expect_calls(calls, {"get_time"})
    expect(len(calls) == 1, "several calls", choice)
    expect(choice["finish_reason"] in ("stop", "tool_calls"), "another finish_reason", choice)


@POINTS.must(
    "none", what='tool_choice "none" gives text', why="agents' last turn: sum up, call no more"
)
def _none(probe: Probe) -> None:
    choice = _call(probe, "none", max_tokens=8)
    expect(not choice["message"].get("tool_calls"), "a tool call", choice)
    expect(isinstance(choice["message"]["content"], str), "content is no text", choice)


@POINTS.must(
    "auto",
    what='tool_choice "auto", and tools without a choice, are accepted',
    why="the default of every agent; it must not need a server flag (vllm issue 12834)",
)
def _auto(probe: Probe) -> None:
    for choice in ("auto", None):
        answer = _call(probe, choice, max_tokens=24)
        message = answer["message"]
        expect(message.get("content") is not None or message.get("tool_calls"), "empty", answer)


@POINTS.must(
    "unknown_name",
    what="a tool_choice that names no declared tool is a 400",
    why="a misspelt name would call something else",
)
def _unknown_name(probe: Probe) -> None:
    choice = {"type": "function", "function": {"name": "get_lost"}}
    answer = probe.post(CHAT, _body(probe, choice, max_tokens=4))
    expect(answer.status in (400, 422), f"status {answer.status}", answer.text)
    expect(answer.error, "no error object", answer.text)


@POINTS.must(
    "required_without_tools",
    what='tool_choice "required" without tools is a 400',
    why="else an agent waits for a call that cannot come",
)
def _without_tools(probe: Probe) -> None:
    answer = probe.post(CHAT, probe.chat_body({"tool_choice": "required"}))
    expect(answer.status in (400, 422), f"status {answer.status}", answer.text)


@POINTS.must(
    "stream",
    what="streamed calls have index always, id and name once, and arguments that join to JSON",
    why="openai and LangChain add up deltas by index; a repeated name is doubled",
)
def _stream(probe: Probe) -> None:
    body = _body(probe, "required", stream=True)
    stream = probe.stream(CHAT, body, optional="tool_choice='required' in a stream")
    for chunk in stream.chunks:
        require_shape(probe, ChatCompletionChunk, chunk)
    parts = stream.choices()
    require_complete(parts[-1]["finish_reason"])
    calls: dict[int, dict[str, Any]] = {}
    for delta in [d for part in parts for d in part["delta"].get("tool_calls") or []]:
        require_keys(delta, "index", "function")
        function = delta["function"]
        expect(isinstance(delta["index"], int), "index is no integer", delta)
        if delta["index"] not in calls:
            require_keys(delta, "id", "type")
            expect(delta["id"] and function.get("name"), "first delta without id, name", delta)
            calls[delta["index"]] = {
                "id": delta["id"],
                "type": delta["type"],
                "function": {"name": function["name"], "arguments": ""},
            }
        else:
            expect(not delta.get("id"), "the id comes again", delta)
            expect(not function.get("name"), "the name comes again", delta)
        calls[delta["index"]]["function"]["arguments"] += function.get("arguments") or ""
    _expect_calls(list(calls.values()), set(_SCHEMAS))
    expect(list(calls) == [*range(len(calls))], "the indices have gaps", list(calls))
    reason = parts[-1]["finish_reason"]
    expect(reason == "tool_calls", f"finish_reason {reason!r}", parts[-1])


@POINTS.must(
    "cut",
    what='arguments that max_tokens cuts say finish_reason "length"',
    why="half a call must not be executed (vllm issue 53269)",
)
def _cut(probe: Probe) -> None:
    choice = _call(probe, "required", max_tokens=4)
    expect(choice["finish_reason"] == "length", "another finish_reason", choice)
