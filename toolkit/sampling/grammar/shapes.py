"""Refuse a node of a JSON schema with keywords that are not of the shape they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from toolkit.errors import InvalidParameter

__all__ = ["check_shape", "invalid_schema"]

# Of lengths and counts: beyond it llguidance fails, and no context holds as much.
_MAX_COUNT = 1_000_000


def _is_schema(value: Any) -> bool:
    return isinstance(value, (Mapping, bool))


def _are_schemas(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_schema, value))


def _is_count(value: Any) -> bool:
    is_whole = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
    )
    return is_whole and 0 <= value <= _MAX_COUNT


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_exclusive(value: Any) -> bool:
    return _is_number(value) or isinstance(value, bool)  # draft 4 had truth values


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_SHAPES: list[tuple[str, Callable[[Any], bool], str]] = [
    ("$ref pattern format", lambda value: isinstance(value, str), "text"),
    ("type", lambda value: isinstance(value, str) or _are_texts(value), "text or a list of texts"),
    ("required", _are_texts, "a list of texts"),
    ("enum", lambda value: isinstance(value, list), "a list"),
    (
        "properties patternProperties $defs definitions",
        lambda value: isinstance(value, Mapping) and all(map(_is_schema, value.values())),
        "an object of schemas",
    ),
    (
        "allOf anyOf oneOf prefixItems",
        _are_schemas,
        "a list of schemas",
    ),
    (
        "items",
        lambda value: _is_schema(value) or _are_schemas(value),
        "a schema",
    ),
    ("additionalItems additionalProperties", _is_schema, "a schema"),
    (
        "minLength maxLength minItems maxItems minProperties maxProperties",
        _is_count,
        f"a whole number from 0 to {_MAX_COUNT}",
    ),
    ("minimum maximum multipleOf", _is_number, "a number"),
    ("exclusiveMinimum exclusiveMaximum", _is_exclusive, "a number"),
]
_BY_KEYWORD = {
    keyword: (fits, shape) for keywords, fits, shape in _SHAPES for keyword in keywords.split()
}


def check_shape(node: Mapping[str, Any], path: str) -> None:
    """Refuse a node with a keyword of a wrong shape.

    Args:
        node: The node.
        path: Where it stands, for the message.

    Raises:
        InvalidParameter: which keyword, and what it should be.
    """
    for keyword, value in node.items():
        fits, shape = _BY_KEYWORD.get(keyword, (None, ""))
        if fits is not None and not fits(value):
            raise invalid_schema(
                f"{keyword} must be {shape}, not {value!r:.80} (at {path[:200]} of the JSON schema)"
            )


def invalid_schema(message: str) -> InvalidParameter:
    """Return the error of a schema that cannot be used."""
    return InvalidParameter(f"structured_outputs: {message}", param="structured_outputs")
