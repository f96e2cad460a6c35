"""What clients send as input becomes complete items, and these a chat's messages."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from toolkit.errors import InvalidRequest
from toolkit.server.responses.items import Item, as_items, as_messages, require_known_calls

ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)
CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'}


def nothing(item_id: str) -> Item | None:
    return None


def messages_of(sent: Any) -> list[dict[str, Any]]:
    items = as_items(sent, nothing)
    for item in items:
        ITEM.validate_python(item)
    return as_messages(items)


def test_text_is_a_message_of_the_users() -> None:
    assert messages_of("Hello") == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("role", ["user", "system", "developer", "assistant"])
def test_content_may_be_text_or_parts(role: str) -> None:
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [{"type": kind, "text": "Hel"}, {"type": "text", "text": "lo"}]
    for content in ("Hello", parts):
        assert messages_of([{"role": role, "content": content}]) == [
            {"role": role, "content": "Hello"}
        ]


def test_a_refusal_is_what_the_assistant_said() -> None:
    sent = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert messages_of([sent]) == [{"role": "assistant", "content": "No."}]


def test_calls_belong_to_the_assistants_message_before_them() -> None:
    told = messages_of(
        [
            {"role": "user", "content": "1?"},
            {"role": "assistant", "content": "Let me see."},
            CALL,
            {**CALL, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "2"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "3"}],
            },
        ]
    )
    function = {"name": "add", "arguments": '{"a": 1}'}
    assert told[1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "tool", "tool_call_id": "c2", "content": "3"},
    ]


def test_a_call_without_words_is_a_message_of_its_own() -> None:
    first, second = messages_of([{"role": "user", "content": "1?"}, CALL])
    assert first["role"] == "user"
    assert second["content"] is None
    assert len(second["tool_calls"]) == 1


def test_reasoning_is_kept_but_not_shown_to_the_model() -> None:
    sent = {"type": "reasoning", "id": "rs_1", "summary": [], "content": None}
    (item,) = as_items([sent], nothing)
    assert item["id"] == "rs_1"
    assert as_messages([item]) == []


def test_ids_are_kept_and_missing_ones_made() -> None:
    kept, made = as_items(
        [{"id": "msg_mine", "role": "user", "content": ""}, {"role": "user", "content": ""}],
        nothing,
    )
    assert kept["id"] == "msg_mine"
    assert made["id"].startswith("msg_")


@pytest.mark.parametrize("sent", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}])
def test_references_are_looked_up(sent: dict[str, str]) -> None:
    stored = as_items("Hello", nothing)[0]
    assert as_items([sent], {"msg_1": stored}.get) == [stored]
    with pytest.raises(InvalidRequest, match="no item 'msg_1'") as caught:
        as_items([sent], nothing)
    assert caught.value.param == "input[0]"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ("Hello", "input[0]"),
        ({"type": "web_search_call"}, "input[0]"),
        ({"type": ["message"], "role": "user"}, "input[0]"),
        ({"role": "tool", "content": ""}, "input[0].role"),
        ({"role": ["user"], "content": ""}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": 1}, "input[0].content"),
        ({"role": "user", "content": ["Hello"]}, "input[0].content[0]"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
            "input[0].content[0]",
        ),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0]"),
        ({"role": "user", "content": "", "id": 1}, "input[0].id"),
        ({**CALL, "name": ""}, "input[0].name"),
        ({**CALL, "arguments": {"a": 1}}, "input[0].arguments"),
        ({**CALL, "call_id": None}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "c1"}, "input[0].output"),
        ({}, "input[0].id"),
    ],
)
def test_what_is_wrong_is_named(item: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        as_items([item], nothing)
    assert caught.value.param == param


def test_an_output_needs_its_call() -> None:
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    require_known_calls(as_items([CALL, output], nothing))
    with pytest.raises(InvalidRequest, match="no tool call found"):
        require_known_calls(as_items([output, CALL], nothing))
