"""Every event and every response is one of openai's types, whatever is answered."""

from __future__ import annotations

import itertools
import json
from typing import Any

import httpx
import pytest

from tests.server.responses.events import read_events, replayed, require_response
from tests.server.responses.talking import ADD, call_text, saying

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORM = {"format": {"type": "json_schema", "name": "person", "schema": SCHEMA, "strict": True}}
SAID = {
    "text": "Hello world",
    "reasoning": "<think>\nWell.\n</think>\n\nHello",
    "call": call_text(1, 2),
    "calls": f"Let me see.\n{call_text(1, 2)}\n{call_text(3, 4)}",
    "thought and call": f"<think>Add.</think>{call_text(1, 2)}",
    "words after a call": f"{call_text(1, 2)}\nDone.",
    "nothing": "",
    "no more than a thought": "<think>Well.</think>",
}


def ask(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/v1/responses", json={"model": "tiny", "input": "Hello", **fields})


def shape(response: dict[str, Any]) -> list[tuple[str, str]]:
    """The items without what differs from call to call."""
    return [
        (
            item["type"],
            item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"],
        )
        for item in response["output"]
    ]


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("said", SAID)
def test_a_stream_tells_what_the_whole_answer_says(
    talk_http: httpx.Client, said: str, logprobs: bool
) -> None:
    fields = saying(SAID[said], tools=[ADD])
    if logprobs:
        fields |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = require_response(ask(talk_http, **fields).json())
    events = read_events(ask(talk_http, **fields, stream=True))
    last = require_response(events[-1]["response"])
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    assert replayed(events) == last["output"]
    assert shape(last) == shape(whole)
    assert last["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    assert last["status"] == whole["status"] == "completed"


def test_items_come_in_the_order_of_the_turn(talk_http: httpx.Client) -> None:
    told = {
        said: shape(ask(talk_http, **saying(text, tools=[ADD])).json())
        for said, text in SAID.items()
    }
    assert told == {
        "text": [("message", "Hello world")],
        "reasoning": [("reasoning", "Well."), ("message", "Hello")],
        "call": [("function_call", '{"a": 1, "b": 2}')],
        "calls": [
            ("message", "Let me see."),
            ("function_call", '{"a": 1, "b": 2}'),
            ("function_call", '{"a": 3, "b": 4}'),
        ],
        "thought and call": [("reasoning", "Add."), ("function_call", '{"a": 1, "b": 2}')],
        "words after a call": [("function_call", '{"a": 1, "b": 2}'), ("message", "\nDone.")],
        "nothing": [("message", "")],
        "no more than a thought": [("reasoning", "Well.")],
    }


def test_the_events_of_a_text_come_in_openais_order(talk_http: httpx.Client) -> None:
    events = read_events(ask(talk_http, **saying("Hi"), stream=True))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert [kind for kind, _ in itertools.groupby(kinds)] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_the_events_of_a_call_come_in_openais_order(talk_http: httpx.Client) -> None:
    events = read_events(ask(talk_http, **saying(call_text(1, 2)), tools=[ADD], stream=True))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert [kind for kind, _ in itertools.groupby(kinds)][2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]


def test_reasoning_is_counted(talk_http: httpx.Client) -> None:
    usage = ask(talk_http, **saying("<think>Well.</think>Hello")).json()["usage"]
    num_thought = usage["output_tokens_details"]["reasoning_tokens"]
    assert 0 < num_thought < usage["output_tokens"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", ["text", "reasoning", "calls"])
def test_an_answer_that_is_cut_says_so(talk_http: httpx.Client, said: str, stream: bool) -> None:
    limits = {"text": 1, "reasoning": 9, "calls": 60}
    fields = saying(SAID[said], tools=[ADD], max_output_tokens=limits[said], stream=stream)
    answer = ask(talk_http, **fields)
    if stream:
        events = read_events(answer)
        assert events[-1]["type"] == "response.incomplete"
        response = events[-1]["response"]
        assert replayed(events) == response["output"]
    else:
        response = answer.json()
    require_response(response)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][-1]["status"] == "incomplete"
    assert {item["status"] for item in response["output"][:-1]} <= {"completed"}
    assert response["usage"]["output_tokens"] == limits[said]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"text": FORM},
        {"text": {"format": {"type": "json_object"}}},
        {"tools": [ADD], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [ADD], "tool_choice": {"type": "function", "name": "add"}},
        {
            "tools": [ADD, {"type": "function", "name": "ping"}],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "add"}],
            },
            "parallel_tool_calls": False,
        },
        {"tools": [ADD], "text": FORM},
        {"structured_outputs": {"choice": ["yes", "no"]}},
    ],
    ids=["schema", "object", "required", "named", "allowed", "tools and schema", "choice"],
)
def test_forms_and_forced_calls_hold_with_any_weights(
    talk_http: httpx.Client, fields: dict[str, Any], stream: bool
) -> None:
    answer = ask(talk_http, **fields, stream=stream, seed=0)
    if stream:
        events = read_events(answer)
        response = events[-1]["response"]
        assert replayed(events) == response["output"]
    else:
        response = answer.json()
    require_response(response)
    assert response["status"] == "completed", response["usage"]
    (item,) = response["output"]
    if "tool_choice" in fields:
        assert item["name"] == "add"
        assert json.loads(item["arguments"]).keys() == {"a", "b"}
    elif "structured_outputs" in fields:
        assert item["content"][0]["text"] in ("yes", "no")
    elif item["type"] == "message":
        assert isinstance(json.loads(item["content"][0]["text"]), dict)


def test_logprobs_line_up_with_the_text(talk_http: httpx.Client) -> None:
    fields = saying("Hello wörld", include=["message.output_text.logprobs"], top_logprobs=3)
    ((part,),) = [item["content"] for item in ask(talk_http, **fields).json()["output"]]
    joined = b"".join(bytes(entry["bytes"]) for entry in part["logprobs"])
    assert joined.decode() == part["text"] == "Hello wörld"
    assert {len(entry["top_logprobs"]) for entry in part["logprobs"]} == {3}


def test_a_stream_that_fails_says_so_twice(talk_http: httpx.Client) -> None:
    """First as OpenAI's error event, then as the response that failed."""
    # A processor that the tag ``say`` is missing for raises while the request runs.
    answer = ask(talk_http, processors=["say"], stream=True)
    events = read_events(answer)
    error, failed = events[-2:]
    assert error["type"] == "error"
    assert error["message"]
    assert failed["type"] == "response.failed"
    response = require_response(failed["response"])
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert talk_http.get(f"/v1/responses/{response['id']}").status_code == 404


def test_a_call_that_a_stop_string_cuts_is_incomplete(talk_http: httpx.Client) -> None:
    body = {"model": "tiny", "input": "Hello", "tools": [ADD], "stop": ["}"]}
    answer = talk_http.post("/v1/responses", json=body | saying(call_text(1, 2)))
    (item,) = answer.json()["output"]
    assert (item["type"], item["status"]) == ("function_call", "incomplete")
    assert item["arguments"] == '{"a": 1, "b": 2'
