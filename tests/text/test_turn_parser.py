"""A turn comes apart into reasoning, content and calls, however it is cut."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.text.turn_deltas import ContentDelta, ReasoningDelta, ToolCallDelta, Turn
from toolkit.text.turn_parser import TurnParser
from toolkit.text.turn_style import TurnStyle

# Enough of a chat template for its format to be recognised.
TEMPLATES = {
    "hermes": "<tool_call>",
    "llama": "{{ message.tool_calls }}<|python_tag|>",
    "mistral": "[TOOL_CALLS]",
    "mistral, named": "[TOOL_CALLS][ARGS]",
    "plain": "",
}
TOOLS = ["add", "get_time"]
CALLS = {
    "hermes": [
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
        '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1}}',
        '<tool_call>[{"name": "add", "arguments": {"a": 1}}]</tool_call>',
    ],
    "llama": [
        '{"name": "add", "parameters": {"a": 1}}',
        '<|python_tag|>{"name": "add", "parameters": {"a": 1}}',
        '  {"type": "function", "name": "add", "parameters": {"a": 1}}\n',
    ],
    "mistral": [
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]',
        '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}]',
        '[TOOL_CALLS]{"name": "add", "arguments": {"a": 1}}',
    ],
    "mistral, named": [
        '[TOOL_CALLS]add[ARGS]{"a": 1}',
        '[TOOL_CALLS]add{"a": 1}',
        '[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": 1}',
    ],
    "plain": [
        '{"name": "add", "arguments": {"a": 1}}',
        '[{"name": "add", "arguments": {"a": 1}}]',
        '```json\n{"name": "add", "arguments": {"a": 1}}\n```',
    ],
}
EACH_CALL = [(name, call) for name, calls in CALLS.items() for call in calls]


def parse(text: str | list[str], template: str, **options: object) -> Turn:
    parser = TurnParser(TurnStyle.of(template), **{"tools": TOOLS, **options})
    pieces = [text] if isinstance(text, str) else text
    deltas = [delta for piece in pieces for delta in parser.push(piece)]
    return Turn.of([*deltas, *parser.finish()])


def said(turn: Turn) -> tuple[str, str, list[tuple[str, str]]]:
    """A turn without its ids, which are random."""
    return turn.content, turn.reasoning, [(call.name, call.arguments) for call in turn.tool_calls]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("name", "text"), EACH_CALL)
def test_a_call_of_each_format_is_recognised(name: str, text: str, streams: bool):
    turn = parse(list(text), TEMPLATES[name], streams=streams)
    assert said(turn) == ("", "", [("add", '{"a": 1}')])


@pytest.mark.parametrize(("name", "text"), EACH_CALL)
def test_without_declared_tools_all_is_content(name: str, text: str):
    assert said(parse(text, TEMPLATES[name], tools=[])) == (text, "", [])


@pytest.mark.parametrize(("name", "text"), EACH_CALL)
def test_a_call_of_an_undeclared_tool_is_content(name: str, text: str):
    assert said(parse(list(text), TEMPLATES[name], tools=["other"])) == (text, "", [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "hermes",
            'Both.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>',
        ),
        (
            "llama",
            '{"name": "add", "parameters": {"a": 1}}; {"name": "get_time", "parameters": {}}',
        ),
        (
            "mistral",
            'Both. [TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}, '
            '{"name": "get_time", "arguments": {}}]',
        ),
        ("mistral, named", 'Both.[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]get_time[ARGS]{}'),
        (
            "plain",
            '[{"name": "add", "arguments": {"a": 1}}, {"name": "get_time", "arguments": {}}]',
        ),
    ],
)
def test_several_calls_are_numbered_and_may_be_limited(name: str, text: str):
    turn = parse(list(text), TEMPLATES[name])
    assert turn.content in ("", "Both.")
    assert [(call.name, call.arguments) for call in turn.tool_calls] == [
        ("add", '{"a": 1}'),
        ("get_time", "{}"),
    ]
    assert turn.tool_calls[0].id != turn.tool_calls[1].id
    assert said(parse(text, TEMPLATES[name], max_calls=1))[2] == [("add", '{"a": 1}')]


def test_a_stream_names_a_call_once_and_then_sends_its_arguments_as_written():
    parser = TurnParser(TurnStyle.of("<tool_call>"), tools=TOOLS)
    pieces = ["On it", "\n<tool", '_call>{"name": "add"', ', "arguments": {"a"', ":  1", "}}", "</"]
    told = [parser.push(piece) for piece in pieces] + [parser.finish()]
    first, opened = told[0], told[3]
    assert first == [ContentDelta("On it")]
    assert told[1] == told[2] == []
    (named, *arguments) = opened
    assert isinstance(named, ToolCallDelta)
    assert (named.index, named.name, named.arguments) == (0, "add", "")
    assert re.fullmatch(r"call_[a-zA-Z0-9]{24}", named.call_id or "")
    rest = [*arguments, *told[4], *told[5], *told[6], *told[7]]
    assert rest == [ToolCallDelta(0, None, None, text) for text in ('{"a"', ":  1", "}")]


def test_mistrals_ids_have_nine_characters():
    (call,) = parse(CALLS["mistral"][0], TEMPLATES["mistral"]).tool_calls
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", call.id)


@pytest.mark.parametrize("written", ["", ', "arguments": null', ', "arguments": ""'])
def test_a_call_without_arguments_has_an_empty_object(written: str):
    text = f'<tool_call>{{"name": "get_time"{written}}}</tool_call>'
    assert said(parse(text, "<tool_call>")) == ("", "", [("get_time", "{}")])


def test_arguments_in_a_string_are_unpacked():
    text = '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>'
    assert said(parse(text, "<tool_call>"))[2] == [("add", '{"a": 1}')]


MALFORMED = [
    "<tool_call>",
    "<tool_call>add</tool_call>",
    '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "add", "arguments": "no JSON"}</tool_call>',
    '<tool_call>{"name": ["add"], "arguments": {}}</tool_call>',
    '<tool_call>{"arguments": {}}</tool_call>',
    "<tool_call>{'name': 'add'}</tool_call>",
    "1 < 2 <tool_ca",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_call_is_content(text: str):
    assert said(parse(list(text), "<tool_call>")) == (text, "", [])


def test_a_whole_answer_tells_no_malformed_call():
    text = '<tool_call>{"name": "add", "arguments": {"a": oops}}</tool_call>'
    assert said(parse(text, "<tool_call>", streams=False)) == (text, "", [])


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("whole", ["", '<tool_call>{"name": "add", "arguments": {}}</tool_call>\n'])
@pytest.mark.parametrize("arguments", ["{", '{"a": ', '{"a": "x'])
def test_a_call_that_is_cut_off_is_told_as_far_as_it_got(arguments: str, whole: str, streams: bool):
    parser = TurnParser(TurnStyle.of("<tool_call>"), tools=TOOLS, streams=streams)
    text = f'{whole}<tool_call>{{"name": "add", "arguments": {arguments}'
    turn = Turn.of([*parser.push(text), *parser.finish()])
    assert said(turn) == ("", "", [("add", "{}")] * bool(whole) + [("add", arguments)])
    assert parser.has_broken_call


@pytest.mark.parametrize("streams", [False, True])
def test_a_call_that_came_to_its_end_is_not_broken(streams: bool):
    parser = TurnParser(TurnStyle.of("<tool_call>"), tools=TOOLS, streams=streams)
    for character in '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_':
        parser.push(character)
    parser.finish()
    assert parser.num_calls == 1
    assert not parser.has_broken_call


def test_a_stream_keeps_what_it_told_and_the_rest_of_a_malformed_call_is_content():
    text = '<tool_call>{"name": "add", "arguments": {"a": oops}}</tool_call>'
    assert said(parse(list(text), "<tool_call>")) == (
        "oops}}</tool_call>",
        "",
        [("add", '{"a": ')],
    )


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("rest", ["", "\n</tool_call>", "</tool_"])
def test_a_call_that_lacks_its_last_bracket_counts(rest: str, streams: bool):
    text = '<tool_call>{"name": "add", "arguments": {"a": 1}' + rest
    assert said(parse(list(text), "<tool_call>", streams=streams)) == (
        "",
        "",
        [("add", '{"a": 1}')],
    )


def test_a_good_call_behind_a_bad_one_counts():
    text = '<tool_call>\n<tool_call>{"name": "add", "arguments": {}}</tool_call> bye'
    assert said(parse(text, "<tool_call>")) == ("<tool_call> bye", "", [("add", "{}")])


@pytest.mark.parametrize("text", ["  Hello  ", "\n", "a < b", "{}", '{"name": "add"'])
@pytest.mark.parametrize("template", TEMPLATES.values())
def test_a_turn_without_calls_is_untouched(template: str, text: str):
    assert said(parse(list(text), template)) == (text, "", [])


# ---- reasoning


@pytest.mark.parametrize(
    ("text", "is_open", "content", "reasoning"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", False, "Yes.", "Hm."),
        ("Hm.\n</think>\n\nYes.", True, "Yes.", "Hm."),
        ("<think>Hm.</think>Yes.", True, "Yes.", "Hm."),
        ("<think>\n\n</think>\n\nYes.", False, "Yes.", ""),
        ("Yes. <think>no</think>", False, "Yes. <think>no</think>", ""),
        ("\n Yes.", False, "\n Yes.", ""),
        ("<think>Hm, a </thin", False, "", "Hm, a </thin"),
        ("Hm.", True, "", "Hm."),
    ],
)
def test_reasoning_is_told_apart(text: str, is_open: bool, content: str, reasoning: str):
    turn = parse(list(text), "</think>", opens_in_reasoning=is_open)
    assert said(turn) == (content, reasoning, [])


def test_a_model_that_does_not_reason_may_write_the_tags():
    text = "<think>Hm.</think>Yes."
    assert said(parse(text, "no such tags")) == (text, "", [])


def test_a_call_may_follow_reasoning_and_one_inside_of_it_is_thought():
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    turn = parse(f"<think>{call}</think>\n{call}", "</think><tool_call>")
    assert said(turn) == ("", call, [("add", "{}")])


def test_the_place_where_content_starts_is_known():
    parser = TurnParser(TurnStyle.of("</think>"))
    parser.push("<think>a</thi")
    assert parser.content_start is None
    parser.push("nk>\n\nb")
    assert parser.content_start == len("<think>a</think>\n\n")


def test_whether_a_prompt_opens_the_reasoning_is_seen():
    style = TurnStyle.of("<think> {{ content.split('</think>')[-1] }}")
    assert style.opens_reasoning("<|assistant|><think>\n")
    assert not style.opens_reasoning("<|assistant|><think>\n\n</think>\n\n")
    assert not TurnStyle.of("").opens_reasoning("<think>")


# ---- whatever the cuts

BITS = st.sampled_from(
    [
        *(call for _, call in EACH_CALL),
        *MALFORMED,
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "[ARGS]", "```json"),
        *("<think>", "</think>", "{", "}", "[", "]", '"', "\\", "; ", ", ", "\n", " ", "add", "é"),
        '{"name": "add", "arguments": {"x": "<tool_call>',
        '{"parameters": {"b": {"c": [1, 2]}}, "name": "get_time"}',
        '{"name": "other", "arguments": {}}',
    ]
)
TEXTS = st.lists(BITS | st.text(max_size=3), max_size=7).map("".join)


@given(TEXTS, st.lists(st.integers(0, 200), max_size=8), st.sampled_from([*TEMPLATES.values()]))
@example('<tool_call>{"name": "add", "arguments": {"a": oops}}', [50, 51], "<tool_call>")
def test_cuts_change_nothing(text: str, cuts: list[int], template: str):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(places)]
    for streams in (False, True):
        for template_ in (template, template + "</think>"):
            whole = said(parse(text, template_, streams=streams))
            assert said(parse(pieces, template_, streams=streams)) == whole
            assert said(parse(list(text), template_, streams=streams)) == whole


@given(TEXTS, st.sampled_from([*TEMPLATES.values()]))
def test_nothing_is_lost_and_whole_answers_hold_only_calls_that_parse(text: str, template: str):
    parser = TurnParser(TurnStyle.of(template), tools=TOOLS, streams=False)
    turn = Turn.of([*parser.push(text), *parser.finish()])
    assert {call.name for call in turn.tool_calls} <= set(TOOLS)
    # The end of the text may cut the last one off.
    for call in turn.tool_calls[: -1 if parser.has_broken_call else None]:
        assert isinstance(json.loads(call.arguments), dict)
    if not turn.tool_calls:
        assert turn.content == text
    # Of a text with calls, all content stands in the text in this order.
    position = 0
    for character in turn.content:
        position = text.index(character, position) + 1


@given(TEXTS)
def test_reasoning_and_content_together_are_the_text(text: str):
    turn = parse(text, "</think>", tools=[], opens_in_reasoning=True)
    joined = re.sub(r"\s|</?think>", "", turn.reasoning + turn.content)
    assert joined == re.sub(r"\s|</?think>", "", text)
    assert isinstance(turn, Turn)


def test_deltas_join_to_a_turn():
    deltas = [
        ReasoningDelta("Hm"),
        ContentDelta("a"),
        ToolCallDelta(1, "2", "g", ""),
        ToolCallDelta(0, "1", "f", "{"),
        ToolCallDelta(0, None, None, "}"),
        ContentDelta("b"),
    ]
    turn = Turn.of(deltas)
    assert (turn.content, turn.reasoning) == ("ab", "Hm")
    assert [(call.id, call.name, call.arguments) for call in turn.tool_calls] == [
        ("1", "f", "{}"),
        ("2", "g", ""),
    ]
