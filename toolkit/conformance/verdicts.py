"""How a check says what it found: by returning, by Failed, or by NotSupported."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["Failed", "NotSupported", "excerpt", "expect"]

_MAX_EXCERPT = 600  # characters: enough to see what is wrong in a table's cell


class Failed(Exception):
    """The server broke the rule; ``evidence`` is what it sent."""

    def __init__(self, message: str, evidence: Any = None) -> None:
        super().__init__(message)
        self.evidence = excerpt(evidence)


class NotSupported(Exception):
    """The server said clearly that it does not do this, or the model gives nothing to judge by."""


def expect(condition: object, message: str, evidence: Any = None) -> None:
    """Raise Failed unless the condition holds."""
    if not condition:
        raise Failed(message, evidence)


def excerpt(evidence: Any) -> str:
    """Return the beginning of what a server sent, as JSON where it is some."""
    if evidence is None:
        return ""
    text = evidence if isinstance(evidence, str) else json.dumps(evidence, ensure_ascii=False)
    return text if len(text) <= _MAX_EXCERPT else text[: _MAX_EXCERPT - 1] + "…"
