"""A form of the answer, asked for under OpenAI's name, vLLM's, or one of vLLM's older ones."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.server.test_errors import CHAT, COMPLETION, error_of
from toolkit.errors import InvalidRequest, PromptTooLong
from toolkit.server.forms import fields_as_sent
from toolkit.server.parameters import chat_params, completion_params
from toolkit.server.protocol import ChatRequest, CompletionRequest
from toolkit.server.settings import ServerSettings
from toolkit.structured_outputs import StructuredOutputsParams

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NAMED = {"name": "a", "schema": SCHEMA, "strict": True}
SETTINGS = ServerSettings()


def completion(**fields: Any) -> CompletionRequest:
    return CompletionRequest(prompt="a", **fields)


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({"response_format": {"type": "json_object"}}, {"json_object": True}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {}},
                }
            },
            {"json": {}},
        ),
        ({"structured_outputs": {"regex": "a+"}}, {"regex": "a+"}),
        ({"guided_json": SCHEMA}, {"json": SCHEMA}),
        ({"guided_json": '{"type": "integer"}'}, {"json": {"type": "integer"}}),
        ({"guided_json": {}}, {"json": {}}),
        ({"guided_json_object": True}, {"json_object": True}),
        ({"guided_regex": "a+"}, {"regex": "a+"}),
        ({"guided_choice": ["yes", "no"]}, {"choice": ["yes", "no"]}),
        ({"guided_grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        (
            {"guided_json": SCHEMA, "guided_whitespace_pattern": "[ ]?"},
            {"json": SCHEMA, "whitespace_pattern": "[ ]?"},
        ),
    ],
)
def test_every_name_asks_for_the_same_forms(fields: dict[str, Any], form: dict[str, Any]) -> None:
    wanted = StructuredOutputsParams(**form)
    assert completion_params(completion(**fields), {}, SETTINGS).structured_outputs == wanted
    chat = ChatRequest(messages=[{"role": "user", "content": "a"}], **fields)
    assert chat_params(chat, {}, SETTINGS).structured_outputs == wanted


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": {"type": "text"}}, {"guided_json_object": False}]
)
def test_any_text_needs_no_form_and_has_the_usual_limit(fields: dict[str, Any]) -> None:
    params = completion_params(completion(**fields), {}, SETTINGS)
    assert params.structured_outputs is None
    assert params.max_tokens == 16


def test_a_form_without_a_limit_may_be_completed() -> None:
    assert completion_params(completion(guided_regex="a+"), {}, SETTINGS).max_tokens is None
    limited = completion(guided_regex="a+", max_tokens=3)
    assert completion_params(limited, {}, SETTINGS).max_tokens == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regexp": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_grammar": ""}, "guided_grammar"),
        ({"guided_json": SCHEMA, "guided_regex": "a"}, "guided_regex"),
        (
            {"guided_regex": "a", "response_format": {"type": "json_object"}},
            "response_format",
        ),
        (
            {"guided_regex": "a", "guided_whitespace_pattern": " "},
            "guided_whitespace_pattern",
        ),
        ({"guided_regex": "a", "use_beam_search": True}, "guided_regex"),
    ],
)
def test_a_form_that_cannot_be_is_refused_under_the_name_that_was_sent(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        completion_params(completion(**fields), {}, SETTINGS)
    assert caught.value.param == param


def test_errors_of_the_engine_name_the_field_that_was_sent() -> None:
    with pytest.raises(InvalidRequest) as caught, fields_as_sent(completion(guided_regex="a")):
        raise InvalidRequest("no such form", param="structured_outputs")
    assert caught.value.param == "guided_regex"
    chat = ChatRequest(messages=[])
    with pytest.raises(PromptTooLong) as long, fields_as_sent(chat):
        raise PromptTooLong("too long", param="prompt")
    assert long.value.param == "messages"
    with pytest.raises(InvalidRequest) as kept, fields_as_sent(chat):
        raise InvalidRequest("other", param="n")
    assert kept.value.param == "n"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_an_answer_has_the_form(http: httpx.Client, path: str) -> None:
    messages = [{"role": "user", "content": "Yes or no?"}]
    asked = {"prompt": "a"} if path == "/v1/completions" else {"messages": messages}

    def text(**fields: Any) -> str:
        answer = http.post(path, json=asked | {"seed": 1} | fields)
        assert answer.status_code == 200, answer.text
        (choice,) = answer.json()["choices"]
        assert choice["finish_reason"] == "stop"
        return str(choice.get("text") or choice["message"]["content"])

    assert text(guided_choice=["yes", "no"]) in ("yes", "no")
    assert re.fullmatch("a{2,4}", text(guided_regex="a{2,4}"))
    named = {"type": "json_schema", "json_schema": NAMED}
    assert isinstance(json.loads(text(response_format=named)), dict)
    assert json.loads(text(structured_outputs={"json": {"type": "integer", "minimum": 7}})) >= 7


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
        ({"guided_grammar": "start: other"}, "guided_grammar"),
        ({"guided_json": {"$ref": "#"}}, "guided_json"),
    ],
)
def test_a_form_that_does_not_compile_is_named(
    http: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    for path, body in (("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)):
        error = error_of(http.post(path, json=body | fields))
        assert error["param"] == param
