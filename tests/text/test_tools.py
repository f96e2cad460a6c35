"""Declared functions and the choice among them are checked before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.errors import InvalidRequest
from toolkit.text.tools import Tool, read_tool_choice, read_tools

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}


def declare(name: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


TOOLS = read_tools([declare("add", parameters=OBJECT), declare("now")])


def test_tools_are_read_with_their_schemas():
    add, now = read_tools([declare("add", parameters=OBJECT, strict=True), declare("now-2_")])
    assert (add.name, add.parameters, add.is_strict) == ("add", OBJECT, True)
    assert (now.name, now.parameters, now.is_strict) == ("now-2_", None, False)
    assert read_tools(None) == read_tools([]) == ()


BAD_TOOLS = {
    "no list": ({"a": 1}, "tools"),
    "text in it": (["add"], "tools[0]"),
    "another type": ([{"type": "web_search"}], "tools[0]"),
    "no function": ([{"type": "function"}], "tools[0].function"),
    "no name": ([declare(None)], "tools[0].function.name"),
    "an empty name": ([declare("")], "tools[0].function.name"),
    "a name with a space": ([declare("a"), declare("b c")], "tools[1].function.name"),
    "a name with a dot": ([declare("a.b")], "tools[0].function.name"),
    "a long name": ([declare("a" * 65)], "tools[0].function.name"),
    "a name twice": ([declare("a"), declare("a")], "tools[1].function.name"),
    "too many": ([declare(f"a{i}") for i in range(1025)], "tools"),
    "parameters that are no object": (
        [declare("a", parameters=[1])],
        "tools[0].function.parameters",
    ),
    "parameters of a list": (
        [declare("a", parameters={"type": "array"})],
        "tools[0].function.parameters",
    ),
    "a description that is no text": (
        [declare("a", description=1)],
        "tools[0].function.description",
    ),
    "strictness in words": ([declare("a", strict="yes")], "tools[0].function.strict"),
}


@pytest.mark.parametrize("what", BAD_TOOLS)
def test_a_wrong_tool_is_refused_with_its_place(what: str):
    tools, param = BAD_TOOLS[what]
    with pytest.raises(InvalidRequest) as caught:
        read_tools(tools)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [
        (None, "auto", ("add", "now")),
        ("auto", "auto", ("add", "now")),
        ("required", "required", ("add", "now")),
        ("none", "none", ()),
        ({"type": "function", "function": {"name": "now"}}, "named", ("now",)),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [declare("now"), declare("now")]},
            },
            "auto",
            ("now",),
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [declare("add")]},
            },
            "required",
            ("add",),
        ),
    ],
)
def test_a_choice_says_what_may_be_called(choice: Any, mode: str, names: tuple[str, ...]):
    read = read_tool_choice(choice, TOOLS)
    assert (read.mode, read.names) == (mode, names)
    assert read.is_forced == (mode in ("required", "named"))


@pytest.mark.parametrize("choice", [None, "none", "auto"])
def test_without_tools_nothing_may_be_called(choice: Any):
    assert read_tool_choice(choice, ()).names == ()


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        ("required", ()),
        ({"type": "function", "function": {"name": "add"}}, ()),
        ({"type": "function", "function": {"name": "sub"}}, TOOLS),
        ({"type": "function"}, TOOLS),
        ({"type": "function", "function": "add"}, TOOLS),
        ({"type": "custom", "custom": {"name": "add"}}, TOOLS),
        ("any", TOOLS),
        (7, TOOLS),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, TOOLS),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [declare("add")]}}, TOOLS),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [declare("x")]}},
            TOOLS,
        ),
        ({"type": "allowed_tools"}, TOOLS),
    ],
)
def test_a_wrong_choice_is_refused(choice: Any, tools: tuple[Tool, ...]):
    with pytest.raises(InvalidRequest) as caught:
        read_tool_choice(choice, tools)
    assert caught.value.param == "tool_choice"


def test_schemas_of_forced_calls_are_closed_objects():
    assert Tool("f", None).schema == {"type": "object", "additionalProperties": False}
    assert Tool("f", OBJECT).schema == {**OBJECT, "additionalProperties": False}
    is_open = {**OBJECT, "additionalProperties": {"type": "string"}}
    assert Tool("f", is_open).schema == is_open
    by_reference = {"$ref": "#/$defs/a", "$defs": {"a": OBJECT}}
    assert Tool("f", by_reference).schema == by_reference


def test_a_strict_tool_closes_the_objects_inside_too():
    nested = {"type": "object", "properties": {"list": {"type": "array", "items": OBJECT}}}
    inner = Tool("f", nested, is_strict=True).schema["properties"]["list"]["items"]
    assert inner == {**OBJECT, "additionalProperties": False}
    inner = Tool("f", nested).schema["properties"]["list"]["items"]
    assert inner == OBJECT
