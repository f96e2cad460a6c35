"""The format of calls is read off the chat template, without a flag."""

from __future__ import annotations

import re

import pytest

from tests.text.family_templates import TEMPLATES
from toolkit.demo import WEIGHTS
from toolkit.text import PLAIN_TEMPLATE, Tokenizer
from toolkit.text.tool_formats import (
    HermesFormat,
    LlamaFormat,
    MistralFormat,
    PlainJsonFormat,
    find_tool_format,
)
from toolkit.text.turn_style import ThinkTags, TurnStyle


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TEMPLATES["hermes"], HermesFormat),
        (TEMPLATES["llama"], LlamaFormat),
        ("{{ message.tool_calls }}<|python_tag|>", LlamaFormat),
        (TEMPLATES["mistral"], MistralFormat),
        (TEMPLATES["gemma"], PlainJsonFormat),
        (PLAIN_TEMPLATE, PlainJsonFormat),
        (None, PlainJsonFormat),
    ],
)
def test_the_format_is_recognised(template: str | None, expected: type):
    assert type(find_tool_format(template)) is expected


def test_newer_mistral_templates_write_names_before_arguments():
    assert "[TOOL_CALLS][" in find_tool_format(TEMPLATES["mistral"]).one.open_all
    assert find_tool_format("[TOOL_CALLS] [ARGS]").one.begin_of("f") == "[TOOL_CALLS]f[ARGS]"


def test_the_bundled_model_writes_calls_as_hermes_does():
    assert type(Tokenizer.load(str(WEIGHTS)).turn_style.tools) is HermesFormat


def test_ids_are_new_each_time():
    ids = {HermesFormat().new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"call_[a-zA-Z0-9]{24}", each) for each in ids)


@pytest.mark.parametrize(
    ("template", "tags"),
    [
        (TEMPLATES["thinking"], ThinkTags("<think>", "</think>")),
        ("[THINK]{{ reasoning }}[/THINK]", ThinkTags("[THINK]", "[/THINK]")),
        (TEMPLATES["hermes"], None),
    ],
)
def test_tags_of_reasoning_are_recognised(template: str, tags: ThinkTags | None):
    assert TurnStyle.of(template).think == tags
