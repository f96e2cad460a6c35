"""How long a body is, which decides where it is worked on."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.server.call import num_characters

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
LONG = 4000  # from here on, work is done in a thread


@pytest.mark.parametrize(
    "value",
    [
        "a" * LONG,
        ["a"] * LONG,
        [1] * LONG,
        [TOOL] * 100,
        {f"key {i}": None for i in range(1000)},
        {"a": {"b": [{"c": "a" * LONG}]}},
        [{"role": "user", "content": [{"type": "text", "text": "a" * LONG}]}],
    ],
)
def test_long_bodies_are_found_wherever_their_length_is(value: Any) -> None:
    assert num_characters(None, value, "Hello") >= LONG


@pytest.mark.parametrize("value", [None, "Hello", [TOOL] * 5, {"a": [1, 2.5, True]}, ["a"] * 900])
def test_short_ones_are_not(value: Any) -> None:
    assert num_characters(value) < LONG
