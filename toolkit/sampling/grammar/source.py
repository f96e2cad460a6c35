"""Write the form of an answer as a grammar in llguidance's dialect of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from llguidance.gbnf_to_lark import gbnf_to_lark

from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar.schema import JsonStyle, enforceable_schema
from toolkit.sampling.grammar.structural_tags import tag_grammar
from toolkit.structured_outputs import StructuredOutputsParams

__all__ = ["grammar_source"]

_GBNF_NAME = re.compile(r"[\w-]+")
# What to step over in Lark when looking for a schema: texts, regular expressions and comments. What
# is never closed is one, too, to the end of its line: so each character is read only once.
_LARK_PART = re.compile(
    r'"(?:[^"\\\n]|\\.)*"?|//[^\n]*|/(?:[^/\\\n]|\\.)+/?|(?P<json>%json\s*)(?=\{)', re.DOTALL
)
# Between the tokens of JSON: nothing, a space, or a line break with its indentation. A random
# model would fill an answer with space if more were allowed.
_WHITESPACE = r"( |\n[ \t]{0,32})?"


def grammar_source(params: StructuredOutputsParams, *, always_closes: bool) -> str:
    """Return the grammar of a form.

    Args:
        params: The form.
        always_closes: Whether free strings of JSON are bounded, so that they end.

    Raises:
        InvalidParameter: the form is malformed, or a part of it cannot be enforced.
    """
    style = JsonStyle(
        whitespace_pattern=_whitespace(params),
        always_closes=always_closes,
        allows_additional_properties=not params.disable_additional_properties,
    )
    if params.json is not None:
        return f"start: {_json(params.json, style)}"
    if params.json_object:
        return f"start: {_json({'type': 'object'}, style)}"
    if params.regex is not None:
        return f"start: /{_for_slashes(params.regex)}/"
    if params.choice is not None:
        return _choice(params.choice)
    if isinstance(params.structural_tag, Mapping):
        return tag_grammar(params.structural_tag, style)
    assert params.grammar is not None  # one of the six is given
    if _is_gbnf(params.grammar):
        return _from_gbnf(params.grammar)
    return "".join(_with_enforceable_schemas(params.grammar, style))


def _json(schema: object, style: JsonStyle) -> str:
    return f"%json {json.dumps(enforceable_schema(schema, style))}"


def _whitespace(params: StructuredOutputsParams) -> str | None:
    if params.disable_any_whitespace:
        return None
    return _WHITESPACE if params.whitespace_pattern is None else params.whitespace_pattern


def _choice(texts: Sequence[str]) -> str:
    """Return a grammar whose texts are one terminal: a rule may have two thousand parts at most."""
    written = [_quoted(text) for text in texts if text]
    if not written:
        return 'start: ""'
    return f"start: CHOICE{'?' if '' in texts else ''}\nCHOICE: {' | '.join(written)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _for_slashes(regex: str) -> str:
    """Return a regular expression as it stands between Lark's slashes."""
    parts = re.sub(r"\\.|/", lambda part: r"\/" if part[0] == "/" else part[0], regex, flags=re.S)
    return parts.replace("\n", r"\n")


def _is_gbnf(grammar: str) -> bool:
    """Whether a line begins as a rule of EBNF does."""
    heads = (line.partition("::=") for line in grammar.splitlines() if "::=" in line)
    return any(_GBNF_NAME.fullmatch(name.strip()) for name, _, _ in heads)


def _from_gbnf(grammar: str) -> str:
    try:
        return gbnf_to_lark(grammar)
    except Exception as error:  # it raises whatever its parser meets
        raise InvalidParameter(
            f"structured_outputs: the EBNF grammar cannot be read: {error}",
            param="structured_outputs",
        ) from error


def _with_enforceable_schemas(grammar: str, style: JsonStyle) -> Iterator[str]:
    """Yield the parts of a Lark grammar, with its inline schemas as they are enforced."""
    position = 0
    reader = json.JSONDecoder()
    for part in _LARK_PART.finditer(grammar):
        if part["json"] is None or part.start() < position:
            continue
        try:
            schema, end = reader.raw_decode(grammar, part.end())
        except (ValueError, RecursionError) as error:
            raise InvalidParameter(
                f"structured_outputs: the grammar has a %json whose schema is not JSON: {error}",
                param="structured_outputs",
            ) from error
        yield grammar[position : part.start()]
        yield _json(schema, style)
        position = end
    yield grammar[position:]
