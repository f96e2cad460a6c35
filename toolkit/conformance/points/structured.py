"""Answers in JSON: response_format."""

from __future__ import annotations

import json
from typing import Any

from toolkit.conformance.check import Points
from toolkit.conformance.json_checks import PERSON, require_complete, require_valid
from toolkit.conformance.probe import CHAT, Probe
from toolkit.conformance.verdicts import expect

__all__ = ["POINTS"]

POINTS = Points("structured")
_MESSAGES = [{"role": "user", "content": "Describe a person as JSON."}]
_SCHEMA = {"name": "person", "schema": PERSON, "strict": True}
_FORMAT = {"type": "json_schema", "json_schema": _SCHEMA}


def _body(probe: Probe, **fields: Any) -> dict[str, Any]:
    """Return a call without a limit: a limit may cut the answer."""
    return {"model": probe.model, "messages": _MESSAGES, **fields}


@POINTS.must(
    "json_schema",
    what="json_schema gives JSON that satisfies the schema",
    why="LangChain: with_structured_output, its default; openai: parse()",
)
def _json_schema(probe: Probe) -> None:
    answer = probe.ok(
        probe.post(CHAT, _body(probe, response_format=_FORMAT)), optional="json_schema"
    )
    (choice,) = answer["choices"]
    require_complete(choice["finish_reason"])
    expect(choice["finish_reason"] == "stop", "it did not end by itself", choice)
    require_valid(choice["message"]["content"], PERSON)


@POINTS.must(
    "json_schema_stream",
    what="the same, as a stream",
    why="openai: the stream helper of parse(), which LangChain uses",
)
def _json_schema_stream(probe: Probe) -> None:
    body = _body(probe, response_format=_FORMAT, stream=True)
    stream = probe.stream(CHAT, body, optional="json_schema")
    require_complete(stream.choices()[-1]["finish_reason"])
    require_valid(stream.text(), PERSON)


@POINTS.must(
    "json_object",
    what="json_object gives a JSON object",
    why="LangChain: with_structured_output(method='json_mode')",
)
def _json_object(probe: Probe) -> None:
    body = _body(probe, response_format={"type": "json_object"})
    answer = probe.ok(probe.post(CHAT, body), optional="json_object")
    (choice,) = answer["choices"]
    require_complete(choice["finish_reason"])
    value = json.loads(choice["message"]["content"])
    expect(isinstance(value, dict), "JSON, but no object", choice)


@POINTS.must(
    "text", what='the format "text" changes nothing', why="clients that always send a format"
)
def _text(probe: Probe) -> None:
    probe.chat(response_format={"type": "text"}, max_tokens=2)


@POINTS.must(
    "cut",
    what='JSON that max_tokens cuts says finish_reason "length"',
    why="openai: parse() raises LengthFinishReasonError in place of a syntax error",
)
def _cut(probe: Probe) -> None:
    answer = probe.chat(
        optional="json_schema", messages=_MESSAGES, response_format=_FORMAT, max_tokens=3
    )
    (choice,) = answer["choices"]
    expect(choice["finish_reason"] == "length", "another reason", choice)


@POINTS.must(
    "bad_schema",
    what="a schema that means nothing is a 400",
    why="openai: BadRequestError says where; else the answer is not what the schema says",
)
def _bad_schema(probe: Probe) -> None:
    schema = {"name": "bad", "schema": {"type": "no-such-type"}}
    response_format = {"type": "json_schema", "json_schema": schema}
    answer = probe.post(CHAT, _body(probe, response_format=response_format, max_tokens=4))
    expect(answer.status in (400, 422), f"status {answer.status}", answer.text)
    expect(answer.error, "no error object", answer.text)
