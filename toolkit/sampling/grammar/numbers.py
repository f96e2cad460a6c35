"""Bounds of numbers that hold in decimal digits as in the floats that they are read as."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar.shapes import invalid_schema

__all__ = ["MAX_FREE_NUMBER", "bound_numbers", "check_numbers", "narrow_numbers"]

# Numbers that no keyword bounds stay within what 64 bits hold, and have no exponent: a random
# model would write digits until no parser takes them.
MAX_FREE_NUMBER = 9_000_000_000_000_000_000
# Beyond it a number of JSON is not what a float holds, and llguidance holds floats.
_EXACT_BITS = 53
_MAX_EXACT_NUMBER = 1 << _EXACT_BITS
# Beyond it a float has too few digits behind the point for a bound with a fraction.
_MAX_FRACTION = 1 << 40
# The least distance to a bound which is not reached itself: llguidance takes a number for less
# than 1.0000001 and more than 1 that is written as 1.
_STEP, _RELATIVE_STEP = 1e-9, 1e-12
# A multiple of 0.01 is none in floats, as 2.22 / 0.01: those of eighths, say, are.
_MAX_FRACTION_BITS = 20
_MAX_DEPTH = 100


def check_numbers(node: Mapping[str, Any], path: str) -> None:
    """Refuse numbers of a node that would not be kept as they are.

    Raises:
        InvalidParameter: which.
    """
    for name in ("const", "enum"):
        if name in node and _has_large_number(node[name], 0):
            raise _unenforced(f"a number beyond 2^53 in {name}", path)
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
        bound = node.get(name)
        if isinstance(bound, float) and not bound.is_integer() and abs(bound) > _MAX_FRACTION:
            raise _unenforced(f"{name}, a number beyond 2^40 with a fraction,", path)
        if not isinstance(bound, int) or abs(bound) <= _MAX_EXACT_NUMBER:
            continue
        if abs(bound) > MAX_FREE_NUMBER or int(float(bound)) != bound:
            raise _unenforced(f"{name}, a number which no float holds,", path)
    multiple = node.get("multipleOf")
    if multiple is not None and Fraction(multiple).denominator > 1 << _MAX_FRACTION_BITS:
        raise _unenforced(
            f"multipleOf {multiple}, of which floats hold no multiples (whole numbers and parts "
            "as 0.5, 0.25 or 0.125 can),",
            path,
        )


def narrow_numbers(node: dict[str, Any]) -> None:
    """Keep numbers off bounds that they may not reach, and multiples within what floats hold."""
    if node.get("type") != "integer":
        _keep_off(node, "exclusiveMinimum", "minimum", 1)
        _keep_off(node, "exclusiveMaximum", "maximum", -1)
    if "multipleOf" in node:
        bits = Fraction(node["multipleOf"]).denominator.bit_length() - 1
        most = 1 << (_EXACT_BITS - bits)
        node["minimum"] = max(-most, node.get("minimum", -most))
        node["maximum"] = min(most, node.get("maximum", most))


def bound_numbers(node: dict[str, Any]) -> None:
    """Give a number a least and a largest value, where it has none."""
    for names, bound in (
        (("minimum", "exclusiveMinimum"), -MAX_FREE_NUMBER),
        (("maximum", "exclusiveMaximum"), MAX_FREE_NUMBER),
    ):
        if not any(name in node for name in names):
            node[names[0]] = bound


def _keep_off(node: dict[str, Any], exclusive: str, inclusive: str, sign: int) -> None:
    """Write a bound that is not reached as one that is, a little within."""
    bound = node.get(exclusive)
    if isinstance(bound, bool):  # in draft 4 it says so of the other one
        bound = node.get(inclusive) if bound else None
    if bound is None:
        return
    step = max(_STEP, abs(bound) * _RELATIVE_STEP)
    reached = bound + sign * (math.ceil(step) if step >= 1 else step)
    other = node.get(inclusive, reached)
    node[inclusive] = max(reached, other) if sign > 0 else min(reached, other)
    del node[exclusive]


def _has_large_number(value: Any, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise invalid_schema(f"a value of the schema is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, list):
        return any(_has_large_number(each, depth + 1) for each in value)
    if isinstance(value, Mapping):
        return any(_has_large_number(each, depth + 1) for each in value.values())
    return isinstance(value, (int, float)) and abs(value) > _MAX_EXACT_NUMBER


def _unenforced(what: str, path: str) -> InvalidParameter:
    return invalid_schema(f"{what} cannot be enforced (at {path[:200]} of the JSON schema)")
