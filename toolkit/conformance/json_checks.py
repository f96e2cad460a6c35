"""What an answer under a schema must be; enough of JSON Schema for the suite's own schemas."""

from __future__ import annotations

import json
from typing import Any

from toolkit.conformance.verdicts import Failed, NotSupported, expect

__all__ = ["PERSON", "require_complete", "require_valid"]

# Every value is bounded, so that a model of random weights can finish it too.
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "enum": ["Ada", "Alan", "Grace"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "is_alive": {"type": "boolean"},
    },
    "required": ["name", "age", "is_alive"],
    "additionalProperties": False,
}
_TYPES = {"string": str, "integer": int, "boolean": bool, "object": dict}


def require_complete(reason: str | None) -> None:
    """Raise NotSupported for an answer that was cut: nothing can be said about it."""
    if reason == "length":
        raise NotSupported("the answer was cut by the server's default length")


def require_valid(text: str, schema: dict[str, Any]) -> None:
    """Raise Failed unless a text is JSON that satisfies one of the suite's schemas."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Failed(f"no JSON: {error}", text) from error
    _check(value, schema, "the value")


def _check(value: Any, schema: dict[str, Any], place: str) -> None:
    kind = schema["type"]
    is_bool = isinstance(value, bool)
    fits = isinstance(value, _TYPES[kind]) and is_bool == (kind == "boolean")
    expect(fits, f"{place} is no {kind}", value)
    if "enum" in schema:
        expect(value in schema["enum"], f"{place} is none of {schema['enum']}", value)
    if kind == "integer":
        low, high = schema["minimum"], schema["maximum"]
        expect(low <= value <= high, f"{place} is not from {low} to {high}", value)
    if kind == "object":
        names = schema["properties"]
        missing = [name for name in schema["required"] if name not in value]
        expect(not missing, f"{place} lacks {missing}", value)
        extra = [name for name in value if name not in names]
        expect(not extra, f"{place} has {extra}, which the schema has not", value)
        for name, item in value.items():
            _check(item, names[name], name)
