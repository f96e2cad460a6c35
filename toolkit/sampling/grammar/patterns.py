"""Patterns and formats of strings as every reader of JSON schemas takes them.

llguidance reads patterns in Rust's dialect, where JSON schemas mean that of ECMA-262: what means
something else there, or nothing, is refused by name. Formats are narrowed to what parsers take.
"""

from __future__ import annotations

import re
from typing import Any

from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar.shapes import invalid_schema

__all__ = ["FORMATS", "check_patterns", "narrow_format"]

# Others are annotations.
FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid uri".split())

_OFFSET = r"(\.[0-9]{1,6})?(Z|[+-].{5})$"
_LABEL = "(-?[A-Za-z0-9]){0,29}"
# Leap seconds and more digits than microseconds have are what most parsers refuse. A name of a host
# has 253 characters at most, a part of it 63: here it has four parts of at most 59.
_NARROWER = {
    "date-time": rf"^.{{10}}T.{{6}}[0-5].{_OFFSET}",
    "time": rf"^.{{6}}[0-5].{_OFFSET}",
    "hostname": rf"^([A-Za-z0-9]{_LABEL}\.){{0,3}}[A-Za-z]{_LABEL}$",
}
# A part of a pattern that may have to be refused, and the classes in which other rules hold. None
# begins where another could go on, so each character is read once.
_PART = re.compile(
    r"(?P<escape>\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[pP]\{|b\{|.)?)"
    r"|(?P<group>\(\?(?:[:=!]|<[=!]|<(?=\w)|.)?)"
    r"|(?P<open>\[\^?\]?)"
    r"|(?P<twice>[*+?}][*+]|\{,)",
    re.DOTALL,
)
_CLASS_PART = re.compile(
    r"(?P<escape>\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[pP]\{|.)?)"
    r"|(?P<close>\])|(?P<set>\[|&&|--|~~)",
    re.DOTALL,
)
_GROUPS = frozenset(("(?:", "(?=", "(?!", "(?<=", "(?<!", "(?<"))
_LETTERS = frozenset("bBdDwWsSnrtfvck")


def narrow_format(node: dict[str, Any]) -> None:
    """Make a node's format what any parser of it takes; drop one that is only an annotation."""
    name = node.get("format")
    if name not in FORMATS:
        node.pop("format", None)
        return
    pattern = _NARROWER.get(name)
    if pattern is None:
        return
    if name == "hostname":  # the pattern says all of it
        del node["format"]
    if "pattern" in node:
        node["allOf"] = [*node.get("allOf", []), {"pattern": pattern}]
    else:
        node["pattern"] = pattern


def check_patterns(node: dict[str, Any], path: str) -> None:
    """Refuse patterns of a node that mean something else to other readers.

    Raises:
        InvalidParameter: what it is.
    """
    for pattern in (node.get("pattern", ""), *node.get("patternProperties", ())):
        found = _not_portable(pattern)
        if found is not None:
            raise _refusal(pattern, found, path)


def _not_portable(pattern: str) -> str | None:
    """Return the first part of a pattern that is of Rust's dialect only."""
    position, is_class = 0, False
    while True:
        part = (_CLASS_PART if is_class else _PART).search(pattern, position)
        if part is None:
            return None
        if not _is_portable(part):
            return part[0]
        if part.lastgroup in ("open", "close"):
            is_class = part.lastgroup == "open"
        position = part.end()


def _is_portable(part: re.Match[str]) -> bool:
    text = part[0]
    if part.lastgroup == "escape":
        letter = text[1:2]
        is_letter = letter.isascii() and letter.isalpha()
        return text != r"\b{" and (not is_letter or len(text) > 2 or letter in _LETTERS)
    if part.lastgroup == "group":
        return text in _GROUPS
    if part.lastgroup == "open":
        return not text.endswith("]")
    return part.lastgroup == "close"


def _refusal(pattern: str, found: str, path: str) -> InvalidParameter:
    return invalid_schema(
        f"the pattern {pattern!r:.80} has {found!r}, which is not of ECMA-262's dialect, so that "
        f"other readers take it for something else (at {path[:200]} of the JSON schema)"
    )
