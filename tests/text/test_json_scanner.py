"""One JSON value, followed character by character."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.text.json_scanner import JsonScanner, Span

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def scan(text: str, step: int) -> tuple[JsonScanner, int]:
    scanner, position = JsonScanner(), 0
    for end in range(step, len(text) + step, step):
        position = scanner.push(text[:end], position)
    return scanner, position


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.integers(1, 9), st.booleans())
def test_an_object_ends_where_it_ends_and_its_members_are_found(
    value: dict[str, Any], step: int, is_wide: bool
):
    written = json.dumps(value, indent=2 if is_wide else None)
    scanner, position = scan(written + " and more", step)
    assert (scanner.is_complete, scanner.is_broken, position) == (True, False, len(written))
    plain = {key: span for key, span in scanner.members.items() if "\\" not in key}
    for key, (start, end) in plain.items():
        assert json.loads(written[start:end]) == value[key]


@given(st.text(alphabet='{}[]":,\\ntrue01-.eE u', max_size=12), st.integers(1, 5))
def test_what_is_complete_is_what_pythons_parser_takes(inside: str, step: int):
    text = '{"a":' + inside + "}"
    scanner, position = scan(text, step)
    try:
        pairs = json.JSONDecoder(object_pairs_hook=list).raw_decode(text)
    except ValueError:
        assert not scanner.is_complete
    else:
        names = [name for name, _ in pairs[0]]
        assert scanner.is_complete == (len(set(names)) == len(names))
        if scanner.is_complete:
            assert position == pairs[1]


@pytest.mark.parametrize(
    ("text", "broken_at"),
    [
        ('{"a": 01}', 7),
        ('{"a": 1,}', 8),
        ('{"a" 1}', 5),
        ("{'a': 1}", 1),
        ('{"a": "\n"}', 7),
        ('{"a": "\\x"}', 8),
        ('{"a": tru}', 9),
        ('{"a": [1}', 8),
        ('{"a": 1, "a": 2}', 14),
        ('{"a": ' + "[" * 600, 505),
        ("x", 0),
    ],
)
def test_a_mistake_is_found_where_it_stands(text: str, broken_at: int):
    scanner, position = scan(text, 1)
    assert (scanner.is_broken, scanner.is_complete, position) == (True, False, broken_at)


def test_a_member_is_known_as_far_as_it_has_come():
    scanner = JsonScanner()
    text = '{"name": "f", "arguments": {"name": [1, {"b'
    assert scanner.push(text, 0) == len(text)
    assert scanner.members == {"name": Span(9, 12), "arguments": Span(27)}
    assert not scanner.is_complete
