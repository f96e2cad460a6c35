"""Forced calls: the grammar takes what the model's format allows, and nothing else."""

from __future__ import annotations

import pytest
from llguidance import LLMatcher, LLTokenizer

from tests.text.test_turn_parser import TEMPLATES, parse, said
from toolkit.text.call_grammar import answer_grammar, json_rule
from toolkit.text.tools import Tool
from toolkit.text.turn_style import ThinkTags, TurnStyle

ADD = Tool("add", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
TIME = Tool("get_time", None)
ONE = {
    "hermes": '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
    "llama": '{"name": "add", "parameters": {"a": 1}}',
    "mistral": '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]',
    "mistral, named": '[TOOL_CALLS]add[ARGS]{"a": 1}',
    "plain": '{"name": "add", "arguments": {"a": 1}}',
}
TWO = {
    "hermes": ONE["hermes"] + '\n<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>',
    "llama": ONE["llama"] + '; {"name": "get_time", "parameters": {}}',
    "mistral": ONE["mistral"][:-1] + ', {"name": "get_time", "arguments": {}}]',
    "mistral, named": ONE["mistral, named"] + "[TOOL_CALLS]get_time[ARGS]{}",
    "plain": f'[{ONE["plain"]}, {{"name": "get_time", "arguments": {{}}}}]',
}
BYTES = LLTokenizer("byte")


def takes(grammar: str, text: str) -> bool:
    """Whether a text is a whole answer under a grammar."""
    matcher = LLMatcher(BYTES, grammar)
    assert not matcher.get_error(), matcher.get_error()
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def grammar_of(name: str, tools: list[Tool], **options: object) -> str:
    options = {"many": True, "special_ids": {}, **options}
    return answer_grammar(TurnStyle.of(TEMPLATES[name]).tools, tools, **options)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_grammar_takes_the_parser_reads(name: str):
    grammar = grammar_of(name, [ADD, TIME])
    assert takes(grammar, TWO[name])
    assert said(parse(TWO[name], TEMPLATES[name])) == (
        "",
        "",
        [("add", '{"a": 1}'), ("get_time", "{}")],
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_call_is_one_call(name: str):
    grammar = grammar_of(name, [ADD, TIME], many=False)
    assert takes(grammar, ONE[name])
    assert not takes(grammar, TWO[name])
    assert said(parse(ONE[name], TEMPLATES[name])) == ("", "", [("add", '{"a": 1}')])


@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_else_is_taken(name: str):
    grammar = grammar_of(name, [ADD])
    right = ONE[name]
    for wrong in ("", "Hello", right[:-1], right.replace("add", "sub"), right.replace("1", '"1"')):
        assert not takes(grammar, wrong)
    assert not takes(grammar, right.replace('"a": 1', '"a": 1, "b": 2'))
    assert not takes(grammar, right.replace('"a": 1', ""))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_call_may_be_one_of_two_answers(name: str):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    grammar = grammar_of(name, [ADD], instead=json_rule(schema), many=False)
    assert takes(grammar, ONE[name])
    assert takes(grammar, '{"ok": true}')
    assert not takes(grammar, '{"ok": 1}')


def test_without_tools_only_the_other_answer_is_taken():
    grammar = grammar_of("hermes", [], instead='"yes" | "no"')
    assert takes(grammar, "no")
    assert not takes(grammar, "maybe")


def test_reasoning_that_was_begun_ends_before_the_call():
    grammar = grammar_of("hermes", [ADD], thought=ThinkTags("<think>", "</think>"))
    for thought in ("Hm.\n</think>\n\n", "</think>", "a < b </thin </think>\n"):
        assert takes(grammar, thought + ONE["hermes"])
    assert not takes(grammar, ONE["hermes"])
    assert not takes(grammar, "Hm.</think></think>" + ONE["hermes"])


def test_special_tokens_are_matched_by_their_ids():
    grammar = grammar_of(
        "mistral, named", [ADD], special_ids={"[TOOL_CALLS]": 7, "[ARGS]": 9}, many=False
    )
    assert '<[7]> "add" <[9]> call_0_arguments' in grammar
    assert "TOOL_CALLS" not in grammar


def test_references_inside_of_a_schema_work():
    tool = Tool(
        "add",
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/number"}},
            "required": ["a"],
            "$defs": {"number": {"type": "integer"}},
        },
    )
    grammar = grammar_of("plain", [tool], many=False)
    assert takes(grammar, ONE["plain"])
    assert not takes(grammar, ONE["plain"].replace("1", "true"))
