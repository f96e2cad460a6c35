"""Every history that OpenAI's API takes becomes a prompt, whatever a family's template demands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.family_templates import TEMPLATES
from tests.text.tokenizers_for_tests import backend
from toolkit.errors import InvalidRequest
from toolkit.text import PLAIN_TEMPLATE, render_chat

TOKENIZER = backend()
ALL = {**TEMPLATES, "plain": PLAIN_TEMPLATE}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
CALL_ID = "call_abcdefghijklmnopqrstuvwx"
CALL = {
    "id": CALL_ID,
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
}
USED_A_TOOL = [
    {"role": "user", "content": "What is the weather in Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": CALL_ID, "content": "sunny, 30"},
]
ALL_ROLES = [
    {"role": "system", "content": "Be kind."},
    {"role": "developer", "content": "Be short."},
    {"role": "user", "content": "Hello", "name": "Ann"},
    {"role": "user", "content": [{"type": "text", "text": "It is me."}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]},
    {"role": "system", "content": "Be brave."},
    *USED_A_TOOL,
    {"role": "assistant", "content": "It is sunny."},
    {"role": "user", "content": "And now?"},
]
WORDS = (
    "Be kind. Hello It is me. I will not. What is the weather in Rome? get_weather Rome "
    "sunny, 30 It is sunny. And now?"
)


def render(name: str, messages: list[Any], **options: Any) -> str:
    return render_chat(TOKENIZER, messages, chat_template=ALL[name], **options)


@pytest.mark.parametrize("name", ALL)
def test_every_role_and_every_word_reaches_the_prompt(name: str):
    prompt = render(name, ALL_ROLES)
    for words in ("Be kind.", "Be short.", "Be brave.", "Hello", "It is me.", "I will not."):
        assert words in prompt
    for words in ("get_weather", "Rome", "sunny, 30", "It is sunny.", "And now?"):
        assert words in prompt


@pytest.mark.parametrize("name", ALL)
def test_declared_tools_reach_the_prompt(name: str):
    prompt = render(name, [{"role": "user", "content": "Hello"}], tools=[TOOL])
    assert "get_weather" in prompt
    assert "Hello" in prompt


@pytest.mark.parametrize("name", ALL)
def test_arguments_are_shown_as_an_object_however_they_came(name: str):
    shown = set()
    for arguments in ('{"city": "Rome"}', {"city": "Rome"}):
        call = {**CALL, "function": {"name": "get_weather", "arguments": arguments}}
        messages = [USED_A_TOOL[0], {**USED_A_TOOL[1], "tool_calls": [call]}, USED_A_TOOL[2]]
        shown.add(render(name, messages))
    (prompt,) = shown
    assert '{"city": "Rome"}' in prompt


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("arguments", ["null", "", None, "{oops"])
def test_arguments_that_are_no_object_do_not_stop_a_template(name: str, arguments: Any):
    call = {**CALL, "function": {"name": "get_weather", "arguments": arguments}}
    messages = [USED_A_TOOL[0], {**USED_A_TOOL[1], "tool_calls": [call]}, USED_A_TOOL[2]]
    assert "sunny, 30" in render(name, messages)


def test_a_template_that_takes_a_history_gets_it_unchanged():
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    prompt = render("hermes", messages)
    assert prompt == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("name", "messages", "expected"),
    [
        (
            "mistral",
            [("system", "S"), ("system", "T"), ("user", "a"), ("user", "b")],
            "[INST]S\n\nT\n\na\n\nb[/INST]",
        ),
        ("mistral", [("user", "a"), ("system", "S")], "[INST]S\n\na[/INST]"),
        (
            "gemma",
            [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c")],
            "<start_of_turn>user\nS\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
            "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n",
        ),
        ("parts", [("user", "a"), ("user", "b")], "<user>a<user>b<assistant>"),
    ],
)
def test_what_a_template_demands_is_met_by_joining(
    name: str, messages: list[tuple[str, str]], expected: str
):
    said = [{"role": role, "content": content} for role, content in messages]
    assert render(name, said) == expected
    assert render(name, said) == expected  # what was learnt the first time leads to the same


def test_long_ids_are_shortened_alike_in_the_call_and_in_its_result():
    prompt = render("mistral", USED_A_TOOL)
    short = prompt.split('"id": "')[1][:9]
    assert short.isalnum()
    assert f'"call_id": "{short}"' in prompt
    short_ones = [
        USED_A_TOOL[0],
        {**USED_A_TOOL[1], "tool_calls": [{**CALL, "id": "abcdefghi"}]},
        {**USED_A_TOOL[2], "tool_call_id": "abcdefghi"},
    ]
    assert '"id": "abcdefghi"' in render("mistral", short_ones)


def test_a_history_that_alternates_in_no_way_is_refused_in_the_templates_own_words():
    with pytest.raises(InvalidRequest, match="must alternate") as caught:
        render("gemma", [{"role": "assistant", "content": "I begin."}])
    assert caught.value.param == "messages"


def test_legacy_function_calls_are_understood():
    messages = [
        USED_A_TOOL[0],
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"role": "function", "name": "get_weather", "content": "sunny"},
    ]
    prompt = render("hermes", messages)
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}' in prompt
    assert "sunny" in prompt


def test_a_tools_result_knows_the_name_of_its_function():
    template = "{% for m in messages %}{{ m.name }}={{ m.content }};{% endfor %}{{ 'tool_calls' }}"
    prompt = render_chat(TOKENIZER, USED_A_TOOL, chat_template=template)
    assert "get_weather=sunny, 30;" in prompt


def test_developer_stays_for_a_template_that_knows_it():
    message = {"role": "developer", "content": "x"}
    template = "{% for m in messages %}{{ m.role }}{% endfor %}"
    assert render_chat(TOKENIZER, [message], chat_template=template) == "system"
    template += "{% if messages[0].role == 'developer' %}{% endif %}"
    assert render_chat(TOKENIZER, [message], chat_template=template) == "developer"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_earlier_reasoning_reaches_the_template_under_either_name(field: str):
    template = "{% for m in messages %}{{ m.reasoning_content }}{{ m.content }}{% endfor %}"
    message = {"role": "assistant", "content": "Yes.", field: "Hm. "}
    assert render_chat(TOKENIZER, [message], chat_template=template) == "Hm. Yes."


@pytest.mark.parametrize("tools", [["x"], [7], [{"function": 7}]])
def test_tools_of_a_wrong_shape_are_an_invalid_request_or_shown_as_they_are(tools: Any):
    for name in ("gemma", "llama"):
        try:
            assert render(name, [{"role": "user", "content": "a"}], tools=tools)
        except InvalidRequest:
            continue


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url", None, 7, []])
def test_a_part_that_is_no_text_is_refused_by_its_type(kind: Any):
    parts = [{"type": "text", "text": "see"}, {"type": kind, "image_url": {"url": "x"}}]
    with pytest.raises(InvalidRequest, match="only text parts") as caught:
        render("hermes", [{"role": "user", "content": parts}])
    assert caught.value.param == "messages[0].content[1]"


@pytest.mark.parametrize("role", ["wizard", "", "User", "model"])
def test_an_unknown_role_is_refused(role: str):
    with pytest.raises(InvalidRequest, match="system, developer, user") as caught:
        render("hermes", [*USED_A_TOOL, {"role": role, "content": "x"}])
    assert caught.value.param == "messages[3].role"


@pytest.mark.parametrize("name", ["messages", "tools", "chat_template", "tokenize", "return_dict"])
def test_template_arguments_cannot_replace_what_has_a_field(name: str):
    with pytest.raises(InvalidRequest, match=name) as caught:
        render("hermes", USED_A_TOOL, template_kwargs={name: True})
    assert caught.value.param == "chat_template_kwargs"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 // 0 }}",
        "{{ messages[7].content }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.join(messages) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * (10 ** 30) }}",
        "{% include 'other' %}",
        "{{ nothing() }}",
    ],
)
def test_whatever_a_template_raises_is_an_invalid_request(template: str):
    with pytest.raises(InvalidRequest, match="refused this conversation"):
        render_chat(TOKENIZER, USED_A_TOOL, chat_template=template)


def test_a_tokenizer_with_several_templates_uses_the_one_for_tools_when_there_are_tools():
    tokenizer = backend()
    tokenizer.chat_template = {"default": "no tools", "tool_use": "{{ tools | length }} tools"}
    hello = [{"role": "user", "content": "Hello"}]
    assert render_chat(tokenizer, hello) == "no tools"
    assert render_chat(tokenizer, hello, tools=[TOOL]) == "1 tools"


CONTENT = (
    st.none()
    | st.text(max_size=5)
    | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=5)}))
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(max_size=12),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["f", "get_weather"]),
                    "arguments": st.sampled_from(["", "null", "{}", '{"a": [1]}', "[", "7"])
                    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
                }
            ),
        }
    ),
    max_size=2,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
    optional={
        "content": CONTENT,
        "name": st.text(max_size=4),
        "tool_calls": st.none() | CALLS,
        "tool_call_id": st.text(max_size=12),
        "refusal": st.none() | st.text(max_size=4),
    },
)


@given(
    st.lists(MESSAGE, min_size=1, max_size=6),
    st.sampled_from([*ALL]),
    st.booleans(),
    st.sampled_from([None, [TOOL]]),
)
def test_any_history_is_rendered_or_refused(
    messages: list[Any], name: str, continues: bool, tools: Any
):
    try:
        outcome = render(name, messages, continue_final_message=continues, tools=tools)
    except InvalidRequest as error:
        outcome = error.param
    assert isinstance(outcome, str)
