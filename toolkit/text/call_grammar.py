"""Grammars of answers that must hold a call, in the words of the model's own format.

They are written in the Lark dialect of llguidance: ``%json`` holds a schema, ``<[7]>`` is the token
with the id 7, whatever text it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.text.tool_formats import CallLayout, ToolFormat
from toolkit.text.tools import Tool
from toolkit.text.turn_style import ThinkTags

__all__ = ["Grammar", "answer_grammar", "json_rule"]

_SYMBOL = re.compile(r'("[^"]*"|[{}\[\]]|, |: )')
# Whoever samples by the grammar sees to it that the answer closes: it needs no bound here.
_THOUGHT = "/(?s:.*)/"


class Grammar:
    """Writes rules.

    Args:
        special_ids: The ids of texts that the vocabulary holds as special tokens.
    """

    def __init__(self, special_ids: Mapping[str, int]) -> None:
        self._special_ids = special_ids
        self._rules: list[str] = []
        names = sorted(special_ids, key=len, reverse=True)
        self._specials = re.compile("|".join(map(re.escape, names)) if names else r"(?!)")

    def add(self, name: str, body: str, *, options: str = "") -> str:
        """Add a rule; return its name."""
        self._rules.append(f"{name}{options}: {body}")
        return name

    def literal(self, text: str) -> str:
        """Return what matches a text; special tokens in it are matched by their ids."""
        parts, start = [], 0
        for found in self._specials.finditer(text):
            parts += _quoted_parts(text[start : found.start()])
            parts.append(f"<[{self._special_ids[found.group()]}]>")
            start = found.end()
        return " ".join([*parts, *_quoted_parts(text[start:])])

    def __str__(self) -> str:
        return "\n".join(self._rules) + "\n"


def answer_grammar(
    tool_format: ToolFormat,
    tools: Sequence[Tool],
    *,
    many: bool,
    special_ids: Mapping[str, int],
    instead: str | None = None,
    thought: ThinkTags | None = None,
) -> str:
    """Return the grammar of an answer that calls tools.

    Args:
        tool_format: How this model writes calls.
        tools: Those that may be called; none: ``instead`` is all that may be said.
        many: Whether there may be more than one call.
        special_ids: The ids of those texts of the format that are special tokens.
        instead: The body of a rule for answers without a call.
        thought: The tags of the reasoning that the prompt has begun: it ends before the call.
    """
    grammar = Grammar(special_ids)
    answers = [_calls(grammar, tool_format, tools, many=many)] if tools else []
    if instead is not None:
        answers.append(grammar.add("instead", instead))
    answer = " | ".join(answers)
    if thought is None:
        grammar.add("start", answer)
    else:
        grammar.add("start", "thought answer")
        grammar.add("answer", answer)
        _add_thought(grammar, thought, special_ids)
    return str(grammar)


def json_rule(schema: Mapping[str, Any] | bool) -> str:
    """Return the body of a rule for the JSON of a schema; true is any JSON."""
    return f"%json {json.dumps(schema)}"


def _calls(grammar: Grammar, tool_format: ToolFormat, tools: Sequence[Tool], *, many: bool) -> str:
    layout = tool_format.many if many else tool_format.one
    each = [_call(grammar, layout, tool, f"call_{index}") for index, tool in enumerate(tools)]
    call = grammar.add("call", " | ".join(each))
    more = f" ({grammar.literal(layout.separator)} {call})*" if many else ""
    opened, closed = grammar.literal(layout.open_all), grammar.literal(layout.close_all)
    return grammar.add("calls", f"{opened} {call}{more} {closed}")


def _call(grammar: Grammar, layout: CallLayout, tool: Tool, name: str) -> str:
    arguments = grammar.add(f"{name}_arguments", json_rule(tool.schema))
    begin, end = grammar.literal(layout.begin_of(tool.name)), grammar.literal(layout.end)
    return grammar.add(name, f"{begin} {arguments} {end}")


def _add_thought(grammar: Grammar, tags: ThinkTags, special_ids: Mapping[str, int]) -> None:
    if tags.close in special_ids:
        # Text never matches a special token, so there is no telling apart to do.
        grammar.add("thought", f"thinking {grammar.literal(tags.close)} BREAK")
        grammar.add("thinking", _THOUGHT)
    else:
        grammar.add("thought", "thinking BREAK")
        grammar.add("thinking", _THOUGHT, options=f"[suffix={_quoted(tags.close)}]")
    grammar.add("BREAK", r"/\n{0,2}/")


def _quoted_parts(text: str) -> list[str]:
    """Quote a text, cut where JSON's own symbols end.

    The lexer takes the longest symbol and does not come back: a call would hide another answer
    that begins like it, were it not cut as ``%json`` cuts it.
    """
    return [_quoted(part) for part in _SYMBOL.split(text) if part]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
