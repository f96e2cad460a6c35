"""Read calls of functions, written as JSON, out of a growing text.

What all formats share: which calls count, how they are numbered, when their arguments may be shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from toolkit.text.growing_text import GrowingText, Reading
from toolkit.text.json_scanner import JsonScanner, Span
from toolkit.text.turn_deltas import ToolCallDelta

__all__ = ["CallLog", "OpenCall", "read_arguments", "read_calls"]

# Hermes, Qwen and Mistral write the first, Llama 3 the second.
_ARGUMENTS = ("arguments", "parameters")


class CallLog:
    """The calls of one turn.

    Args:
        source: The turn's text.
        send: Takes what may be shown of the calls.
        names: Functions that may be called; a call of another one is no call.
        new_id: Makes the ids.
        max_calls: Calls beyond these are read and dropped; None: no limit.
        streams: Whether arguments are shown as they come; else a call is shown when it is known to
            be well formed, or when the text ends inside of it.
    """

    def __init__(
        self,
        source: GrowingText,
        send: Callable[[ToolCallDelta], object],
        *,
        names: Collection[str],
        new_id: Callable[[], str],
        max_calls: int | None,
        streams: bool,
    ) -> None:
        self.source = source
        self.names = names
        self.streams = streams
        # The text up to here was made into calls; nothing of it is content.
        self.settled = 0
        self.num_calls = 0
        # Calls whose arguments were shown and have not come to their end.
        self.num_open = 0
        self._send = send
        self._new_id = new_id
        self._max_calls = max_calls

    def begin(self, name: str, arguments: str = "") -> int | None:
        """Send the beginning of a call; return its number, None if it is dropped."""
        if self._max_calls is not None and self.num_calls >= self._max_calls:
            return None
        self.num_calls += 1
        index = self.num_calls - 1
        self._send(ToolCallDelta(index, self._new_id(), name, arguments))
        return index

    def more(self, index: int | None, arguments: str) -> None:
        """Send more arguments of a call."""
        if index is not None and arguments:
            self._send(ToolCallDelta(index, None, None, arguments))

    def settle(self) -> None:
        """Say that all that was read belongs to calls."""
        self.settled = self.source.position


class OpenCall:
    """One call while it is read; positions count in the turn's text."""

    def __init__(self, log: CallLog) -> None:
        self._log = log
        self._name: str | None = None
        self._is_shown = False
        self._index: int | None = None
        self._begun: tuple[int, int] | None = None  # where its arguments stand, so far

    def is_of(self, name: Any) -> bool:
        """Say which function is called; return whether it may be."""
        if not isinstance(name, str) or name not in self._log.names:
            return False
        self._name = name
        return True

    def show(self, start: int, end: int) -> None:
        """Show arguments, which stand at [start, end) so far, if this turn is streamed."""
        self._begun = (start, end)
        if self._log.streams:
            self._show(start, end)

    def _show(self, start: int, end: int) -> None:
        if self._name is None:
            return
        if not self._is_shown:
            self._is_shown = True
            self._index = self._log.begin(self._name)
            self._log.num_open += self._index is not None
            self._log.settled = start
        shown_end = max(self._log.settled, start)
        self._log.more(self._index, self._log.source.text[shown_end:end])
        self._log.settled = max(shown_end, end)

    def follow(self, scanner: JsonScanner, base: int) -> bool:
        """Show what is known of a call object at ``base``; return whether it can be a call."""
        text = self._log.source.text
        name = scanner.members.get("name")
        if self._name is None and name is not None and name.end is not None:
            try:
                said = json.loads(text[base + name.start : base + name.end])
            except ValueError:
                return False
            if not self.is_of(said):
                return False
        key = next((key for key in scanner.members if key in _ARGUMENTS), None)
        if key is not None:
            start, end = scanner.members[key]
            if text.startswith("{", base + start):
                self.show(base + start, base + (scanner.num_scanned if end is None else end))
        return True

    def end(self, arguments: str) -> bool:
        """End the call; ``arguments`` as written. Returns whether it is well formed."""
        whole = _object_text(arguments)
        if self._name is None or whole is None:
            return False
        if not self._is_shown:
            self._log.begin(self._name, whole)
        elif self._index is not None:
            self._log.num_open -= 1
        self._log.settle()
        return True

    def give_up(self, scanner: JsonScanner) -> None:
        """End a call that broke off: if the text ended there, its beginning is shown.

        What was shown stays, and what follows is no content.
        """
        if scanner.is_broken or self._begun is None:
            return
        self._show(*self._begun)
        if self._is_shown:
            self._log.settled = len(self._log.source.text)


def read_calls(log: CallLog, separators: str = "") -> Reading[bool]:
    """Read a call object, a list of them, or several between ``separators``.

    Returns whether all were calls; those before the first that was none count.
    """
    source = log.source
    is_list = yield from source.accept("[")
    separators = "," if is_list else separators
    yield from source.skip_space()
    while True:
        if not (yield from _read_object(log)):
            return False
        yield from source.skip_space(separators)
        if is_list and (yield from source.accept("]")):
            log.settle()
            return True
        if not (yield from source.more()) or source.text[source.position] != "{":
            source.position = log.settled
            return not is_list


def _read_object(log: CallLog) -> Reading[bool]:
    """Read one call object; all it needs is a name and arguments, closed or not."""
    call, scanner, base = OpenCall(log), JsonScanner(), log.source.position
    if not (yield from _starts_object(log.source)):
        return False
    while not (scanner.is_complete or scanner.is_broken) and (yield from log.source.more()):
        log.source.position = scanner.push(log.source.text, log.source.position)
        if not call.follow(scanner, base):
            return False
    start, end = next(
        (span for key, span in scanner.members.items() if key in _ARGUMENTS), Span(0, 0)
    )
    if end is not None and (end or scanner.is_complete):
        return call.end(log.source.text[base + start : base + end])
    call.give_up(scanner)
    return False


def read_arguments(log: CallLog, name: str) -> Reading[bool]:
    """Read the arguments of a call whose name stood before them."""
    call, scanner, base = OpenCall(log), JsonScanner(), log.source.position
    if not call.is_of(name) or not (yield from _starts_object(log.source)):
        return False
    while not scanner.is_complete:
        if not (yield from log.source.more()):
            call.give_up(scanner)
            return False
        log.source.position = scanner.push(log.source.text, log.source.position)
        call.show(base, log.source.position)
        if scanner.is_broken:
            return False
    return call.end(log.source.text[base : log.source.position])


def _starts_object(source: GrowingText) -> Reading[bool]:
    """Wait for a character; return whether a JSON object begins there."""
    return (yield from source.more()) and source.text[source.position] == "{"


def _object_text(written: str) -> str | None:
    """Return arguments as the text of a JSON object, or None if they are something else."""
    if written in ("", "null"):
        return "{}"
    if written.startswith("{"):
        return written
    if written.startswith('"'):
        # Some models write the object into a string, as OpenAI's API does.
        try:
            inner = json.loads(written)
            value = json.loads(inner or "null")
        except (ValueError, RecursionError):
            return None
        if value is None or isinstance(value, dict):
            return "{}" if value is None else str(inner)
    return None
