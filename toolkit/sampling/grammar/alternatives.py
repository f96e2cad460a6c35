"""Tell whether no value fits two alternatives of a oneOf, so that it may be read as an anyOf.

What is looked at is what a value has to be at least: types, values, required properties. So what
is found disjoint is that, and what could be more is taken for the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from toolkit.sampling.grammar.effort import Effort

__all__ = ["are_disjoint"]

# References that lead on to references, and properties in which they are looked into.
_MAX_DEPTH = 16
_MAX_REFERENCE = 1_000
# Comparisons for one oneOf, and references followed, each of some microseconds; alternatives of
# which this is not enough to tell them apart are taken for the same.
_MAX_COMPARISONS = 100_000
_TYPES = {
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    str: {"string"},
    list: {"array"},
    dict: {"object"},
    type(None): {"null"},
}
_ALL_TYPES = set().union(*_TYPES.values())


def are_disjoint(node: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Return whether it is certain that no value fits two alternatives of a node's oneOf.

    >>> cat = {"properties": {"kind": {"const": "cat"}}, "required": ["kind"], "type": "object"}
    >>> dog = {"properties": {"kind": {"const": "dog"}}, "required": ["kind"], "type": "object"}
    >>> are_disjoint({"oneOf": [cat, dog, {"type": "null"}]}, {})
    True
    >>> are_disjoint({"oneOf": [cat, {}]}, {})
    False

    Args:
        node: The schema with the oneOf; its type and what it requires hold for each alternative.
        root: The schema in which references are looked up.
    """
    effort = Effort(_MAX_COMPARISONS)
    try:
        return _are_disjoint(node, root, effort)
    except RecursionError:  # values nested so deep that they cannot be compared
        return False


def _are_disjoint(node: Mapping[str, Any], root: Mapping[str, Any], effort: Effort) -> bool:
    alternatives = [_with_shared(each, node, root, effort) for each in node["oneOf"]]
    listed = [values for each in alternatives if (values := _values(each)) is not None]
    others = [each for each in alternatives if _values(each) is None]
    if not _are_all_different(listed):
        return False
    if listed:  # they differ from each other; all of them together have to differ from the rest
        others.append({"enum": [value for values in listed for value in values]})
    return all(_excludes(a, b, root, effort, 0) for a, b in combinations(others, 2))


def _with_shared(
    alternative: Any, node: Mapping[str, Any], root: Mapping[str, Any], effort: Effort
) -> Any:
    """Return an alternative with what the schema around it asks of all."""
    alternative = _resolved(alternative, root, effort)
    if alternative is True:
        alternative = {}
    if not isinstance(alternative, Mapping):
        return alternative
    shared = {"type": node["type"]} if "type" in node else {}
    required = [*_required(alternative), *_required(node)]
    return {**shared, **alternative, **({"required": required} if required else {})}


def _are_all_different(lists: list[list[Any]]) -> bool:
    """Whether no two lists have a value in common."""
    seen: set[str] = set()
    for values in lists:
        own = {_key(value) for value in values}
        if own & seen:
            return False
        seen |= own
    return True


def _excludes(one: Any, other: Any, root: Mapping[str, Any], effort: Effort, depth: int) -> bool:
    one, other = _resolved(one, root, effort), _resolved(other, root, effort)
    if one is False or other is False:
        return True
    if depth > _MAX_DEPTH or not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    ones, others = _values(one), _values(other)
    if not all(effort.spend() for _ in [*(ones or [0]), *(others or [0])]):
        return False
    if ones is not None and others is not None:
        return _are_all_different([ones, others])
    if not _types(one) & _types(other):
        return True
    if _types(one) != {"object"} or _types(other) != {"object"}:
        return False
    if _forbids_what_is_required(one, other) or _forbids_what_is_required(other, one):
        return True
    mine, theirs = one.get("properties", {}), other.get("properties", {})
    return any(
        name in mine
        and name in theirs
        and _excludes(mine[name], theirs[name], root, effort, depth + 1)
        for name in dict.fromkeys([*_required(one), *_required(other)])
    )


def _forbids_what_is_required(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one schema allows no property but its own, and the other requires a different one."""
    if one.get("additionalProperties") is not False or "patternProperties" in one:
        return False
    return any(name not in one.get("properties", {}) for name in _required(other))


def _resolved(node: Any, root: Mapping[str, Any], effort: Effort) -> Any:
    """Follow references within the schema; other keywords beside one only narrow it."""
    for _ in range(_MAX_DEPTH):
        reference = node.get("$ref") if isinstance(node, Mapping) else None
        if not isinstance(reference, str):
            return node
        is_place = reference.startswith("#/") and len(reference) <= _MAX_REFERENCE
        if not is_place or not effort.spend():  # it may be anything
            return True
        node = root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or name not in node:
                return True
            node = node[name]
    return True


def _values(node: Any) -> list[Any] | None:
    """Return the only values that fit, where the schema lists them."""
    if not isinstance(node, Mapping):
        return None
    if "const" in node:
        return [node["const"]]
    return node["enum"] if isinstance(node.get("enum"), list) else None


def _types(node: Mapping[str, Any]) -> set[str]:
    """Return the types that may fit; an integer is a number too."""
    values = _values(node)
    if values is not None:
        types = set().union(*(_TYPES[type(value)] for value in values))
    else:
        named = node.get("type", list(_ALL_TYPES))
        types = set(named) if isinstance(named, list) else {str(named)}
    return types | {"integer"} if "number" in types else types


def _required(node: Mapping[str, Any]) -> list[str]:
    required = node.get("required", [])
    return required if isinstance(required, list) else []


def _key(value: Any) -> str:
    """Return a text that equal values share: true is not 1, but 1 is 1.0."""
    return json.dumps(_normal(value), sort_keys=True)


def _normal(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_normal(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _normal(each) for name, each in value.items()}
    return value
