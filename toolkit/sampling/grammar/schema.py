"""A JSON schema as it can be enforced: what is enforced is what it says, or something narrower.

Three things are made explicit that a schema leaves open, so that any model's answer ends and can be
read by any parser: what a value without a schema may be, how long a number may be, and, where an
answer has to close by itself, how long a string.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar.alternatives import are_disjoint
from toolkit.sampling.grammar.numbers import (
    MAX_FREE_NUMBER,
    bound_numbers,
    check_numbers,
    narrow_numbers,
)
from toolkit.sampling.grammar.patterns import check_patterns, narrow_format
from toolkit.sampling.grammar.shapes import check_shape, invalid_schema

__all__ = ["MAX_FREE_STRING_CHARACTERS", "JsonStyle", "enforceable_schema"]

# Of a string that no keyword bounds, in an answer that has to close by itself.
MAX_FREE_STRING_CHARACTERS = 1_000
# Of a property's name that the schema leaves open.
_MAX_FREE_NAME = 64
# llguidance reads no deeper, and takes seconds for more properties.
_MAX_DEPTH = 100
_MAX_PROPERTIES = 5_000
_ANNOTATIONS = frozenset(
    "title description default examples deprecated readOnly writeOnly $comment $schema $id id "
    "$defs definitions $anchor discriminator nullable".split()
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLES = ("items", "additionalItems", "additionalProperties")
# What bounds a string by itself.
_STRING_BOUNDS = ("maxLength", "pattern", "format", "enum", "const")
# Where the schema of a value of any type stands, with more of the last letter if a schema has it.
_ANY = "any-value"


@dataclass(frozen=True, slots=True)
class JsonStyle:
    """How JSON is written.

    Args:
        whitespace_pattern: The space between tokens; None for none.
        always_closes: Whether free strings are bounded.
        allows_additional_properties: Whether a schema's ``additionalProperties`` counts.
    """

    whitespace_pattern: str | None
    always_closes: bool
    allows_additional_properties: bool


def enforceable_schema(schema: Any, style: JsonStyle) -> dict[str, Any]:
    """Return a schema for llguidance, which every answer that fits the result fits too.

    An object has properties that the schema does not name only where it asks for them by
    ``additionalProperties``, or names none at all.

    Raises:
        InvalidParameter: a keyword cannot be enforced.
    """
    if not isinstance(schema, (Mapping, bool)):
        raise invalid_schema(f"a JSON schema is an object or a truth value, not {schema!r:.80}")
    writer = _Writer(schema if isinstance(schema, Mapping) else {}, style)
    if schema is False:
        raise invalid_schema("no value fits the JSON schema false")
    root = dict(writer.write(schema, "#", 0))
    root["$defs"] = {**root.get("$defs", {}), writer.any_name: writer.any_value()}
    if style.whitespace_pattern is None:
        root["x-guidance"] = {"whitespace_flexible": False}
    else:
        root["x-guidance"] = {"whitespace_pattern": style.whitespace_pattern}
    return root


class _Writer:
    """Writes the nodes of one schema."""

    def __init__(self, root: Mapping[str, Any], style: JsonStyle) -> None:
        self._root = root
        self._style = style
        self._num_properties = 0
        self.any_name = _ANY
        while self.any_name in root.get("$defs", ()):
            self.any_name += _ANY[-1]
        self._any_ref = {"$ref": f"#/$defs/{self.any_name}"}

    def write(self, node: Any, path: str, depth: int, *, is_part: bool = False) -> Any:
        """Return a node as it can be enforced.

        Args:
            node: A schema.
            path: Where it stands.
            depth: How deep that is.
            is_part: Whether other keywords hold for the same value, so that what this node leaves
                open may be said by them.
        """
        if node is True:
            return {} if is_part else dict(self._any_ref)
        if not isinstance(node, Mapping):
            return node
        if depth > _MAX_DEPTH:
            raise invalid_schema(f"the schema is nested more than {_MAX_DEPTH} deep")
        check_shape(node, path)
        written = {key: value for key, value in node.items() if key != "x-guidance"}
        _drop_what_says_nothing(written)
        check_numbers(written, path)
        narrow_numbers(written)
        check_patterns(written, path)
        narrow_format(written)
        keywords = written.keys() - _ANNOTATIONS
        if not keywords and not is_part:
            return {**written, **self._any_ref, **self._write_children(written, path, depth, False)}
        is_combined = bool(keywords & {"$ref", "allOf", "anyOf", "oneOf"})
        parts_combine = "allOf" in keywords or len(keywords) > 1
        written |= self._write_children(written, path, depth, parts_combine)
        if "oneOf" in written:
            # By what the alternatives say, not by what is written for them: that is narrower, and
            # a value which it leaves out of one alternative still has to be out of that one.
            if not are_disjoint(node, self._root):
                raise invalid_schema(
                    "a oneOf whose alternatives could hold at once cannot be enforced (at "
                    f"{path[:200]} of the JSON schema); tell them apart by a required property "
                    "with a const, or use anyOf"
                )
            # The same then, and what llguidance can follow.
            written = _with_any_of(written, path)
        if not is_combined and not is_part:
            self._make_explicit(written)
        self._check_min_properties(written, path)
        return written

    def any_value(self) -> dict[str, Any]:
        """Return the schema of a value of any type."""
        text: dict[str, Any] = {"type": "string"}
        if self._style.always_closes:
            text["maxLength"] = MAX_FREE_STRING_CHARACTERS
        kinds = [
            {"type": "null"},
            {"type": "boolean"},
            {
                "type": "number",
                "minimum": -MAX_FREE_NUMBER,
                "maximum": MAX_FREE_NUMBER,
            },
            text,
            {"type": "array", "items": self._any_ref},
            {"type": "object", **_any_properties(self._any_ref)},
        ]
        return {"anyOf": kinds}

    def _write_children(
        self, node: Mapping[str, Any], path: str, depth: int, combine: bool
    ) -> dict[str, Any]:
        """Return the keywords of a node that hold schemas, with these written."""
        written: dict[str, Any] = {}
        for name in _LISTS:
            if isinstance(node.get(name), list):
                is_part = combine and name != "prefixItems"
                written[name] = [
                    self.write(each, f"{path}/{name}/{place}", depth + 1, is_part=is_part)
                    for place, each in enumerate(node[name])
                ]
        for name in _MAPS:
            if isinstance(node.get(name), Mapping):
                self._count_properties(len(node[name]))
                written[name] = {
                    key: self.write(each, f"{path}/{name}/{key}", depth + 1)
                    for key, each in node[name].items()
                }
        for name in _SINGLES:
            if isinstance(node.get(name), list):  # before 2020-12: one for each place
                written[name] = [
                    self.write(each, f"{path}/{name}/{place}", depth + 1)
                    for place, each in enumerate(node[name])
                ]
            elif name in node:
                written[name] = self.write(node[name], f"{path}/{name}", depth + 1)
        if not self._style.allows_additional_properties and "properties" in node:
            written["additionalProperties"] = False
        return written

    def _make_explicit(self, node: dict[str, Any]) -> None:
        """Bound what a node that stands for itself leaves open, by the types it may have."""
        if "enum" in node or "const" in node:
            return
        types = node.get("type", ["string", "number", "array", "object"])
        types = types if isinstance(types, list) else [types]
        is_free = not any(key in node for key in _STRING_BOUNDS)
        if "string" in types and self._style.always_closes and is_free:
            node["maxLength"] = MAX_FREE_STRING_CHARACTERS + node.get("minLength", 0)
        if "number" in types or "integer" in types:
            bound_numbers(node)
        if "array" in types and "items" not in node:
            has_places = "prefixItems" in node
            is_long = node.get("minItems", 0) > len(node["prefixItems"]) if has_places else True
            node["items"] = dict(self._any_ref) if is_long else False
        if "object" in types and "additionalProperties" not in node:
            _close_object(node, self._any_ref)

    def _check_min_properties(self, node: Mapping[str, Any], path: str) -> None:
        """Refuse a count of properties that a name written twice could seem to reach."""
        least = node.get("minProperties", 0)
        is_open = node.get("additionalProperties", True) is not False or "patternProperties" in node
        required = node.get("required", [])
        if is_open and least > len(required) + 1:
            raise _unenforced("minProperties, where properties have free names,", path)

    def _count_properties(self, count: int) -> None:
        self._num_properties += count
        if self._num_properties > _MAX_PROPERTIES:
            raise invalid_schema(f"the schema has more than {_MAX_PROPERTIES} properties")


def _drop_what_says_nothing(node: dict[str, Any]) -> None:
    """Take out keywords that llguidance does not know, where they hold for everything anyway."""
    for name, empty in (
        ("uniqueItems", False),
        ("unevaluatedProperties", True),
        ("unevaluatedItems", True),
        ("dependentRequired", {}),
        ("dependentSchemas", {}),
        ("dependencies", {}),
        ("propertyNames", True),
        ("propertyNames", {}),
        ("propertyNames", {"type": "string"}),
    ):
        if name in node and node[name] == empty and type(node[name]) is type(empty):
            del node[name]
    composes = {"$ref", "allOf", "anyOf", "oneOf", "if"} & node.keys()
    if node.get("unevaluatedProperties") is False and not composes:
        del node["unevaluatedProperties"]
        node.setdefault("additionalProperties", False)


def _close_object(node: dict[str, Any], any_ref: dict[str, Any]) -> None:
    """Say which properties an object has beside those that its schema names."""
    named = node.get("properties", {})
    required = node.get("required", [])
    needs_others = any(name not in named for name in required)
    if "patternProperties" in node and not needs_others:
        node["additionalProperties"] = False
    elif "properties" not in node and not required:
        node.update(_any_properties(any_ref))
    elif needs_others:
        node["additionalProperties"] = dict(any_ref)
    else:
        node["additionalProperties"] = False


def _any_properties(any_ref: dict[str, Any]) -> dict[str, Any]:
    name = f"^[^\\x00-\\x1f]{{0,{_MAX_FREE_NAME}}}$"
    return {"patternProperties": {name: any_ref}, "additionalProperties": False}


def _with_any_of(node: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a node with its oneOf as an anyOf."""
    if "anyOf" in node:
        raise _unenforced("oneOf beside anyOf", path)
    return {("anyOf" if name == "oneOf" else name): value for name, value in node.items()}


def _unenforced(what: str, path: str) -> InvalidParameter:
    return invalid_schema(f"{what} cannot be enforced (at {path[:200]} of the JSON schema)")
