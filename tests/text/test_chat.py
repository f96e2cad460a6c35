"""Conversations become prompts, with the model's template or a plain one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.text.tokenizers_for_tests import backend
from toolkit.errors import InvalidRequest
from toolkit.text import render_chat

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}[{{ call.function.name }}:"
    "{% for key, value in call.function.arguments.items() %}{{ key }}={{ value }};{% endfor %}]"
    "{% endfor %}{% endfor %}"
    "{% if tools %}({{ tools | length }} tools){% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}{{ extra }}"
)
HELLO = [{"role": "user", "content": "Hello"}]


def render(messages: Any, **kwargs: Any) -> str:
    return render_chat(backend(), messages, **{"chat_template": TEMPLATE, **kwargs})


def test_a_model_without_a_template_gets_a_plain_one_and_one_warning(
    caplog: pytest.LogCaptureFixture,
):
    tokenizer = backend(name="gpt-of-these-tests")
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ]
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        first, second = render_chat(tokenizer, messages), render_chat(tokenizer, messages)
    assert first == second == "System: Be kind.\nUser: Hello\nAssistant:"
    assert len(caplog.records) == 1
    assert "gpt-of-these-tests" in caplog.text
    assert "chat_template" in caplog.text


def test_the_models_own_template_is_used():
    tokenizer = backend()
    tokenizer.chat_template = TEMPLATE
    assert render_chat(tokenizer, HELLO) == "<user>Hello<assistant>"


def test_a_given_template_replaces_the_models():
    tokenizer = backend()
    tokenizer.chat_template = TEMPLATE
    given = "{% for m in messages %}{{ m.content }}!{% endfor %}"
    assert render_chat(tokenizer, HELLO, chat_template=given) == "Hello!"


def test_the_assistants_turn_can_be_left_out_or_continued():
    assert render(HELLO, add_generation_prompt=False) == "<user>Hello"
    messages = [*HELLO, {"role": "assistant", "content": "I th"}]
    assert render(messages, continue_final_message=True) == "<user>Hello<assistant>I th"


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}, " you"]
    assert render([{"role": "user", "content": parts}]) == "<user>Hello you<assistant>"


def test_arguments_of_tool_calls_may_be_a_json_string():
    for arguments in ('{"city": "Bonn", "days": 3}', {"city": "Bonn", "days": 3}):
        call = {"id": "1", "function": {"name": "weather", "arguments": arguments}}
        messages = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}]
        assert "[weather:city=Bonn;days=3;]" in render(messages)


@pytest.mark.parametrize("arguments", ["", "  "])
def test_empty_arguments_are_an_empty_mapping(arguments: str):
    call = {"function": {"name": "now", "arguments": arguments}}
    assert "[now:]" in render([{"role": "assistant", "content": "", "tool_calls": [call]}])


def test_arguments_that_are_no_json_reach_the_template_as_they_are():
    call = {"function": {"name": "now", "arguments": "{oops"}}
    template = "{{ messages[0].tool_calls[0].function.arguments }}"
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert render([message], chat_template=template) == "{oops"


def test_the_callers_messages_are_not_changed():
    call = {"function": {"name": "now", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": [{"text": "x"}], "tool_calls": [call]}
    render([message])
    assert call == {"function": {"name": "now", "arguments": '{"a": 1}'}}
    assert message["content"] == [{"text": "x"}]


def test_tools_and_further_variables_reach_the_template():
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert "(1 tools)" in render(HELLO, tools=[tool])
    assert render(HELLO, template_kwargs={"extra": "?"}).endswith("?")


BAD = {
    "no messages": ([], "messages"),
    "a text instead of messages": ("Hello", "messages"),
    "a text among them": ([*HELLO, "Hello"], "messages[1]"),
    "no role": ([{"content": "Hello"}], "messages[0]"),
    "a role that is no text": ([{"role": 7, "content": "Hello"}], "messages[0]"),
    "a number as content": ([{"role": "user", "content": 7}], "messages[0].content"),
    "a mapping as content": ([{"role": "user", "content": {"text": "x"}}], "messages[0].content"),
    "an image part": (
        [*HELLO, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
        "messages[1].content[0]",
    ),
    "a number among parts": ([{"role": "user", "content": ["a", 7]}], "messages[0].content[1]"),
    "calls that are no list": (
        [{"role": "assistant", "content": "", "tool_calls": {"a": 1}}],
        "messages[0].tool_calls",
    ),
    "a call that is text": (
        [{"role": "assistant", "content": "", "tool_calls": ["now"]}],
        "messages[0].tool_calls",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_shape_that_no_template_takes_is_refused_with_its_place(what: str):
    messages, param = BAD[what]
    with pytest.raises(InvalidRequest) as caught:
        render(messages)
    assert caught.value.param == param


@pytest.mark.parametrize("function", ["now", 7, ["now"]])
def test_a_function_that_is_no_object_is_refused(function: Any):
    messages = [{"role": "assistant", "content": "", "tool_calls": [{"function": function}]}]
    with pytest.raises(InvalidRequest):
        render(messages)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0].nothing.more }}",
        "{{ messages[0].content + 1 }}",
        "{% for",
    ],
)
def test_a_template_that_refuses_says_why_as_an_invalid_request(template: str):
    with pytest.raises(InvalidRequest, match="chat template") as caught:
        render(HELLO, chat_template=template)
    assert caught.value.param == "messages"
