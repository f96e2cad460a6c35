"""The Responses API; a server may lack it."""

from __future__ import annotations

from openai.types.responses import Response

from toolkit.conformance.check import Points
from toolkit.conformance.probe import Probe
from toolkit.conformance.shapes import require_keys, require_shape
from toolkit.conformance.verdicts import NotSupported, expect

__all__ = ["POINTS"]

POINTS = Points("responses")
_PATH = "/v1/responses"
_ENDS = ("response.completed", "response.incomplete")


@POINTS.must(
    "shape",
    what="an answer has OpenAI's fields with OpenAI's types",
    why="openai: client.responses.create; LangChain with use_responses_api",
)
def _shape(probe: Probe) -> None:
    body = {"model": probe.model, "input": "Say hi.", "max_output_tokens": 16}
    answer = probe.endpoint(_PATH, body)
    require_keys(answer, "id", "object", "created_at", "status", "model", "output", "usage")
    require_shape(probe, Response, answer)
    expect(answer["object"] == "response", "another object", answer)
    expect(answer["status"] in ("completed", "incomplete"), "another status", answer)
    if answer["status"] == "incomplete":
        reason = (answer.get("incomplete_details") or {}).get("reason")
        expect(reason == "max_output_tokens", "incomplete, and not why", answer)
    texts = [part["text"] for item in answer["output"] for part in item.get("content") or []]
    expect(texts, "no text in the output", answer)


@POINTS.must(
    "stream",
    what="events come in order: created first, completed or incomplete last, numbers growing",
    why="openai: the event stream; agents' user interfaces",
)
def _stream(probe: Probe) -> None:
    body = {"model": probe.model, "input": "Say hi.", "max_output_tokens": 16}
    if probe.post(_PATH, body).status in (404, 405, 501):
        raise NotSupported("there is no /v1/responses")
    stream = probe.stream(_PATH, {**body, "stream": True}, optional="a stream of responses")
    events = stream.chunks
    kinds = [event["type"] for event in events]
    expect(kinds[0] == "response.created", f"the first event is {kinds[0]}", events[0])
    expect(kinds[-1] in _ENDS, f"the last event is {kinds[-1]}", events[-1])
    numbers = [event["sequence_number"] for event in events]
    expect(numbers == sorted(set(numbers)), "sequence_number does not grow", numbers)
    named = [kind for kind in stream.kinds if kind]
    expect(not named or named == kinds, "event: and type differ", named)
    deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    done = "".join(e["text"] for e in events if e["type"] == "response.output_text.done")
    expect(deltas == done, f"the deltas say {deltas!r}, the end says {done!r}")
    require_shape(probe, Response, events[-1]["response"])


@POINTS.should(
    "previous",
    what="previous_response_id continues a stored response; an unknown one is an error",
    why="LangChain: use_previous_response_id",
)
def _previous(probe: Probe) -> None:
    body = {"model": probe.model, "input": "Say hi.", "max_output_tokens": 16}
    first = probe.endpoint(_PATH, body)
    again = probe.endpoint(_PATH, {**body, "previous_response_id": first["id"]})
    expect(again["previous_response_id"] == first["id"], "it is not repeated", again)
    unknown = probe.post(_PATH, {**body, "previous_response_id": "resp_no_such"})
    expect(unknown.status in (400, 404), f"status {unknown.status}", unknown.text)
