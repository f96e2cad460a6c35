"""What an assistant's turn consists of, piece by piece: content, reasoning, calls of tools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["ContentDelta", "ReasoningDelta", "ToolCall", "ToolCallDelta", "Turn", "TurnDelta"]


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More of what the user reads."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thought."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of one call: its id and name come once, with its first delta; arguments are JSON."""

    index: int
    call_id: str | None
    name: str | None
    arguments: str


TurnDelta: TypeAlias = ContentDelta | ReasoningDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A whole turn; ``content`` and ``reasoning`` are empty where there is none."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]

    @classmethod
    def of(cls, deltas: Iterable[TurnDelta]) -> Turn:
        """Join the deltas of a turn."""
        content, reasoning = "", ""
        calls: dict[int, ToolCall] = {}
        for delta in deltas:
            if isinstance(delta, ContentDelta):
                content += delta.text
            elif isinstance(delta, ReasoningDelta):
                reasoning += delta.text
            else:
                known = calls.get(delta.index, ToolCall("", "", ""))
                calls[delta.index] = ToolCall(
                    known.id or delta.call_id or "",
                    known.name or delta.name or "",
                    known.arguments + delta.arguments,
                )
        return cls(content, reasoning, tuple(calls[index] for index in sorted(calls)))
