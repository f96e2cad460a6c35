"""Every field is honoured, repeated, harmless, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.server.responses.events import require_response
from tests.server.responses.talking import ADD
from toolkit.llm import LLM
from toolkit.server import serve

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"max_tokens": 4}, "max_tokens"),
        ({"max_completion_tokens": 4}, "max_completion_tokens"),
        ({"response_format": {"type": "text"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
        ({"input": [{"role": "tool", "content": ""}]}, "input[0].role"),
        ({"input": "x" * 3000}, "input"),
        ({"include": ["everything"]}, "include[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"min_tokens": 9}, "min_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"temperature": -1}, "temperature"),
        ({"truncation": "middle"}, "truncation"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"vllm_xargs": {"a": "x" * 9000}}, "vllm_xargs"),
        ({"reasoning": {"effort": "huge"}}, "reasoning"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a b", "schema": SCHEMA}}},
            "text.format",
        ),
        (
            {
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "a",
                        "schema": {"$ref": "#/$defs/missing"},
                    }
                }
            },
            "text.format",
        ),
        (
            {
                "text": {"format": {"type": "json_object"}},
                "structured_outputs": {"choice": ["a"]},
            },
            "text.format",
        ),
        ({"tools": ["add"]}, "tools[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]"),
        ({"tools": [{**ADD, "name": "a b"}]}, "tools[0].name"),
        ({"tools": [ADD, ADD]}, "tools[1].name"),
        ({"tools": [{**ADD, "strict": "yes"}]}, "tools[0].strict"),
        ({"tools": [{**ADD, "parameters": "{}"}]}, "tools[0].parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "add"}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "name": "sub"}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"processors": ["unknown"]}, "processors"),
    ],
)
def test_what_is_wrong_is_named(post: Any, fields: dict[str, Any], param: str) -> None:
    answer = post(**fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["message"]


def test_what_is_wrong_is_named_before_a_stream_begins(post: Any) -> None:
    answer = post(input="x" * 3000, stream=True)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_an_unknown_model_is_a_404(post: Any) -> None:
    answer = post(model="gpt-9")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    "fields",
    [
        {"background": False},
        {"conversation": None},
        {"include": ["reasoning.encrypted_content", "file_search_call.results"]},
        {"service_tier": "flex"},
        {"prompt_cache_retention": "24h"},
        {"text": {"verbosity": "low"}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
        {"max_tool_calls": 3},
        {"stream_options": None, "tools": None, "tool_choice": None, "instructions": None},
        {"tool_choice": "auto"},
        {"tools": [], "tool_choice": "none"},
    ],
)
def test_what_changes_nothing_is_accepted_by_strict_servers(
    llm: LLM, fields: dict[str, Any]
) -> None:
    with (
        serve(llm, port=0, served_model_name="tiny", strict=True) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        body = {"model": "tiny", "input": "Hello", "max_output_tokens": 2, **fields}
        answer = http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    assert "x-toolkit-ignored" not in answer.headers
    require_response(answer.json())


def test_unknown_fields_are_named_in_a_header(post: Any) -> None:
    answer = post(colour="red", text={"size": 7}, reasoning={"depth": 1})
    assert answer.headers["x-toolkit-ignored"] == "colour, text.size, reasoning.depth"


def test_what_was_asked_is_repeated(post: Any) -> None:
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 3,
        "max_tool_calls": 2,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "key",
        "safety_identifier": "someone",
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 2,
        "tools": [ADD],
        "tool_choice": {"type": "function", "name": "add"},
        "truncation": "auto",
        "user": "me",
    }
    answer = post(**asked, reasoning={"effort": "low"}, text={"verbosity": "high"})
    response = require_response(answer.json())
    assert {name: response[name] for name in asked} == asked
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "high"}


@pytest.mark.parametrize(
    "choice",
    [
        "none",
        {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "add"}],
        },
    ],
)
def test_the_choice_of_tools_is_repeated(post: Any, choice: Any) -> None:
    response = require_response(post(tools=[ADD], tool_choice=choice).json())
    assert response["tool_choice"] == choice


def test_the_format_is_repeated(post: Any) -> None:
    form = {"type": "json_schema", "name": "empty", "schema": SCHEMA, "strict": True}
    response = require_response(post(text={"format": form}, max_output_tokens=40).json())
    assert response["text"]["format"] == {**form, "description": None}
    assert json.loads(response["output"][0]["content"][0]["text"]) == {}


def test_sampling_follows_the_fields(post: Any) -> None:
    def text(**fields: Any) -> str:
        found: str = post(**fields).json()["output"][0]["content"][0]["text"]
        return found

    assert text(temperature=1, seed=1) == text(temperature=1, seed=1)
    assert text(temperature=1, top_k=1) == text(temperature=0)
    banned = text(temperature=0)[0]
    assert banned not in text(temperature=0, bad_words=[banned])


def test_logprobs_come_with_include_or_with_a_number(post: Any) -> None:
    def entries(**fields: Any) -> list[Any]:
        found: list[Any] = post(**fields).json()["output"][0]["content"][0]["logprobs"]
        return found

    assert entries() == []
    plain = entries(include=["message.output_text.logprobs"])
    assert plain
    assert all(entry["top_logprobs"] == [] for entry in plain)
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries(top_logprobs=2))
