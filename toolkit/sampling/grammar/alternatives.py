"""Tell whether no value fits two alternatives of a oneOf, so that it may be read as an anyOf."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

__all__ = ["are_disjoint"]

# References that lead on to references, and properties in which they are looked into.
_MAX_DEPTH = 16
_TYPES = {
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    str: {"string"},
    list: {"array"},
    dict: {"object"},
    type(None): {"null"},
}


def are_disjoint(alternatives: Any, root: Mapping[str, Any]) -> bool:
    """Return whether it is certain that no value fits two of the alternatives.

    >>> cat = {"properties": {"kind": {"const": "cat"}}, "required": ["kind"], "type": "object"}
    >>> dog = {"properties": {"kind": {"const": "dog"}}, "required": ["kind"], "type": "object"}
    >>> are_disjoint([cat, dog, {"type": "null"}], {}), are_disjoint([cat, {}], {})
    (True, False)
    """
    if not isinstance(alternatives, list):
        return False
    return all(_excludes(a, b, root, 0) for a, b in combinations(alternatives, 2))


def _excludes(one: Any, other: Any, root: Mapping[str, Any], depth: int) -> bool:
    one, other = _resolved(one, root), _resolved(other, root)
    if depth > _MAX_DEPTH or not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return one is False or other is False
    ones, others = _values(one), _values(other)
    if ones is not None and others is not None:
        return not any(_are_same(a, b) for a in ones for b in others)
    if not _types(one) & _types(other):
        return True
    if _types(one) != {"object"} or _types(other) != {"object"}:
        return False
    names = {*_required(one), *_required(other)}
    mine, theirs = one.get("properties", {}), other.get("properties", {})
    return any(
        name in mine and name in theirs and _excludes(mine[name], theirs[name], root, depth + 1)
        for name in names
    )


def _resolved(node: Any, root: Mapping[str, Any]) -> Any:
    """Follow references within the schema; other keywords beside one only narrow it."""
    for _ in range(_MAX_DEPTH):
        reference = node.get("$ref") if isinstance(node, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return node
        node = root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or name not in node:
                return True
            node = node[name]
    return True


def _values(node: Mapping[str, Any]) -> list[Any] | None:
    """Return the only values that fit, where the schema lists them."""
    if "const" in node:
        return [node["const"]]
    return node["enum"] if isinstance(node.get("enum"), list) else None


def _types(node: Mapping[str, Any]) -> set[str]:
    """Return the types that may fit; an integer is a number too."""
    values = _values(node)
    if values is not None:
        return set().union(*(_TYPES[type(value)] for value in values))
    named = node.get("type", [name for names in _TYPES.values() for name in names])
    types = set(named) if isinstance(named, list) else {str(named)}
    return types | {"integer"} if "number" in types else types


def _required(node: Mapping[str, Any]) -> list[str]:
    required = node.get("required", [])
    return required if isinstance(required, list) else []


def _are_same(a: Any, b: Any) -> bool:
    """Compare as JSON does: true is not 1, but 1 is 1.0."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b
