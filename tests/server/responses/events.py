"""Read a stream of a response, and hold every event to openai's types and to OpenAI's order."""

from __future__ import annotations

import json
from typing import Any, get_args

import httpx
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

# What OpenAI sends always, though its package's types let it be absent.
ALWAYS = {
    "status",
    "error",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "metadata",
    "previous_response_id",
    "reasoning",
    "service_tier",
    "temperature",
    "text",
    "top_p",
    "truncation",
    "usage",
    "user",
}
_KINDS: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["type"].annotation)[0]: model
    for model in get_args(get_args(ResponseStreamEvent)[0])
}


def require_valid(model: type[BaseModel], payload: dict[str, Any]) -> None:
    """Fail unless a payload is of the type, and has no field that the type does not know."""
    assert _unknown(model.model_validate_json(json.dumps(payload), strict=True)) == []


def _unknown(value: Any, place: str = "") -> list[str]:
    """The places of fields that the types of a value do not have."""
    if isinstance(value, list):
        return [found for each in value for found in _unknown(each, f"{place}[]")]
    if not isinstance(value, BaseModel):
        return []
    known = [found for name, each in value for found in _unknown(each, f"{place}.{name}")]
    return [*(f"{place}.{name}" for name in value.model_extra or ()), *known]


def require_response(payload: dict[str, Any]) -> dict[str, Any]:
    """Fail unless a payload is a whole response; return it."""
    require_valid(Response, payload)
    assert payload.keys() >= ALWAYS
    return payload


def read_events(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream, each of them valid, in numbered order, under its name."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in answer.text.split("\n\n"):
        if not block:
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        require_valid(_KINDS[event["type"]], event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    return events


def replayed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Build the items from the events alone, and fail where events contradict each other."""
    items: list[dict[str, Any]] = []
    done = 0
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items) == done, "items overlap"
            items.append({**event["item"]})
        elif kind == "output_item.done":
            assert {**items[-1], "status": event["item"]["status"]} == event["item"]
            items[-1] = event["item"]
            done += 1
        elif "output_index" in event:
            assert event["output_index"] == len(items) - 1
            assert event["item_id"] == items[-1]["id"]
            _grow(items[-1], kind, event)
    assert done == len(items)
    return items


def _grow(item: dict[str, Any], kind: str, event: dict[str, Any]) -> None:
    if kind == "function_call_arguments.delta":
        item["arguments"] += event["delta"]
    elif kind == "function_call_arguments.done":
        assert item["arguments"] == event["arguments"]
    elif kind == "content_part.added":
        assert event["content_index"] == len(item["content"]) == 0
        item["content"] = [{**event["part"]}]
    elif kind in ("output_text.delta", "reasoning_text.delta"):
        part = item["content"][event["content_index"]]
        part["text"] += event["delta"]
        part.setdefault("streamed", []).extend(event.get("logprobs", ()))
    elif kind in ("output_text.done", "reasoning_text.done"):
        assert item["content"][0]["text"] == event["text"]
    elif kind == "content_part.done":
        part = event["part"]
        streamed = item["content"][0].pop("streamed", [])
        told = [entry["token"] for entry in part.get("logprobs") or ()]
        assert [entry["token"] for entry in streamed] == told[: len(streamed)]
        item["content"] = [part]
