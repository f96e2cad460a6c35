"""The items of an answer while it is written, and the events that tell how they grow.

A turn's deltas become items in their order: reasoning, messages, calls of functions. One item is
open at a time; a delta of another kind, or of another call, closes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
)
from openai.types.responses.response_reasoning_item import Content as ReasoningText

from toolkit.server.responses.items import new_id
from toolkit.text import ContentDelta, ReasoningDelta, ToolCallDelta
from toolkit.text.turn_deltas import TurnDelta

__all__ = ["Event", "Logprobs", "Output"]

# Entries of the chosen tokens, as ``ResponseOutputText.logprobs`` has them.
Logprobs = list[dict[str, Any]]


class Event(NamedTuple):
    """What is told to the client: the event's type, and its fields but for the number."""

    kind: str
    fields: dict[str, Any]


class OpenItem(Protocol):
    """An item that grows."""

    def accepts(self, delta: TurnDelta) -> bool:
        """Whether a delta belongs to this item."""
        ...

    def item(self, status: str) -> ResponseOutputItem:
        """Return the item as it is now."""
        ...

    def opening(self) -> Iterator[Event]:
        """Yield what follows the event that added the item."""
        ...

    def add(self, delta: TurnDelta, logprobs: Logprobs) -> Iterator[Event]:
        """Take a delta."""
        ...

    def closing(self) -> Iterator[Event]:
        """Yield what comes before the event that the item is done."""
        ...


class Output:
    """The items of one answer."""

    def __init__(self) -> None:
        self.items: list[ResponseOutputItem] = []
        self._open: OpenItem | None = None

    def take(self, delta: TurnDelta, logprobs: Logprobs) -> Iterator[Event]:
        """Add a delta, with the log-probabilities of its tokens."""
        if self._open is not None and not self._open.accepts(delta):
            yield from self._close("completed")
        if self._open is None:
            yield from self._begin(_new_item(delta, len(self.items)))
        assert self._open is not None
        yield from self._open.add(delta, logprobs)

    def finish(self, logprobs: Logprobs, *, is_cut: bool) -> Iterator[Event]:
        """End the answer; one without a word is an empty message.

        Args:
            logprobs: Those of tokens at the end that made no more text.
            is_cut: Whether the answer, or its last call, broke off: its last item is incomplete.
        """
        if self._open is None:
            yield from self._begin(_Message(len(self.items)))
        if isinstance(self._open, _Message):
            self._open.logprobs += logprobs
        yield from self._close("incomplete" if is_cut else "completed")

    def _begin(self, item: OpenItem) -> Iterator[Event]:
        self._open = item
        yield self._item_event("response.output_item.added", item.item("in_progress"))
        yield from item.opening()

    def _close(self, status: str) -> Iterator[Event]:
        assert self._open is not None
        yield from self._open.closing()
        item = self._open.item(status)
        yield self._item_event("response.output_item.done", item)
        self.items.append(item)
        self._open = None

    def _item_event(self, kind: str, item: ResponseOutputItem) -> Event:
        written = item.model_dump(exclude_unset=True, mode="json", by_alias=True)
        return Event(kind, {"output_index": len(self.items), "item": written})


class _Message:
    """A message with one text."""

    def __init__(self, output_index: int) -> None:
        self._id = new_id("msg")
        self._place = {"item_id": self._id, "output_index": output_index, "content_index": 0}
        self._texts: list[str] = []
        self.logprobs: Logprobs = []

    def accepts(self, delta: TurnDelta) -> bool:
        return isinstance(delta, ContentDelta)

    def item(self, status: str) -> ResponseOutputItem:
        return ResponseOutputMessage.construct(
            id=self._id,
            type="message",
            status=status,
            role="assistant",
            content=[] if status == "in_progress" else [self._part()],
        )

    def opening(self) -> Iterator[Event]:
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield Event("response.content_part.added", {**self._place, "part": part})

    def add(self, delta: TurnDelta, logprobs: Logprobs) -> Iterator[Event]:
        assert isinstance(delta, ContentDelta)
        self._texts.append(delta.text)
        self.logprobs += logprobs
        yield Event(
            "response.output_text.delta",
            {**self._place, "delta": delta.text, "logprobs": _without_bytes(logprobs)},
        )

    def closing(self) -> Iterator[Event]:
        part = self._part()
        logprobs = _without_bytes(self.logprobs)
        done = {**self._place, "text": part.text, "logprobs": logprobs}
        yield Event("response.output_text.done", done)
        yield Event("response.content_part.done", {**self._place, "part": part.to_dict()})

    def _part(self) -> ResponseOutputText:
        return ResponseOutputText.model_validate(
            {
                "type": "output_text",
                "text": "".join(self._texts),
                "annotations": [],
                "logprobs": self.logprobs,
            }
        )


class _Reasoning:
    """What the model thought before it answered."""

    def __init__(self, output_index: int) -> None:
        self._id = new_id("rs")
        self._place = {"item_id": self._id, "output_index": output_index, "content_index": 0}
        self._texts: list[str] = []

    def accepts(self, delta: TurnDelta) -> bool:
        return isinstance(delta, ReasoningDelta)

    def item(self, status: str) -> ResponseOutputItem:
        content = [] if status == "in_progress" else [self._part()]
        return ResponseReasoningItem.construct(
            id=self._id, type="reasoning", summary=[], content=content, status=status
        )

    def opening(self) -> Iterator[Event]:
        part = {"type": "reasoning_text", "text": ""}
        yield Event("response.content_part.added", {**self._place, "part": part})

    def add(self, delta: TurnDelta, logprobs: Logprobs) -> Iterator[Event]:
        assert isinstance(delta, ReasoningDelta)
        self._texts.append(delta.text)
        yield Event("response.reasoning_text.delta", {**self._place, "delta": delta.text})

    def closing(self) -> Iterator[Event]:
        part = self._part()
        yield Event("response.reasoning_text.done", {**self._place, "text": part.text})
        yield Event("response.content_part.done", {**self._place, "part": part.to_dict()})

    def _part(self) -> ReasoningText:
        return ReasoningText(type="reasoning_text", text="".join(self._texts))


class _Call:
    """A call of one function; its arguments are JSON, piece by piece."""

    def __init__(self, output_index: int, first: ToolCallDelta) -> None:
        self._id = new_id("fc")
        self._place = {"item_id": self._id, "output_index": output_index}
        self._index = first.index
        self._call_id = first.call_id or new_id("call")
        self._name = first.name or ""
        self._arguments: list[str] = []

    def accepts(self, delta: TurnDelta) -> bool:
        return isinstance(delta, ToolCallDelta) and delta.index == self._index

    def item(self, status: str) -> ResponseOutputItem:
        return ResponseFunctionToolCall.construct(
            id=self._id,
            type="function_call",
            status=status,
            call_id=self._call_id,
            name=self._name,
            arguments="".join(self._arguments),
        )

    def opening(self) -> Iterator[Event]:
        yield from ()

    def add(self, delta: TurnDelta, logprobs: Logprobs) -> Iterator[Event]:
        assert isinstance(delta, ToolCallDelta)
        if delta.arguments:
            self._arguments.append(delta.arguments)
            fields = {**self._place, "delta": delta.arguments}
            yield Event("response.function_call_arguments.delta", fields)

    def closing(self) -> Iterator[Event]:
        fields = {**self._place, "arguments": "".join(self._arguments)}
        yield Event("response.function_call_arguments.done", fields)


def _new_item(delta: TurnDelta, output_index: int) -> OpenItem:
    if isinstance(delta, ContentDelta):
        return _Message(output_index)
    if isinstance(delta, ReasoningDelta):
        return _Reasoning(output_index)
    return _Call(output_index, delta)


def _without_bytes(logprobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return entries as events have them, which tell no bytes."""
    return [
        {
            "token": entry["token"],
            "logprob": entry["logprob"],
            "top_logprobs": [
                {"token": top["token"], "logprob": top["logprob"]} for top in entry["top_logprobs"]
            ],
        }
        for entry in logprobs
    ]
