"""Take an assistant's turn apart while it is written: reasoning, content, calls of tools.

What comes out does not depend on how the text was cut into pieces. Nothing is lost: a call that is
malformed, or of a function that was not declared, is content. Only what may begin a call or end
the reasoning is held back, and white space around these.
"""

from __future__ import annotations

from collections.abc import Collection

from toolkit.text.call_reader import CallLog
from toolkit.text.growing_text import GrowingText, Reading
from toolkit.text.turn_deltas import ContentDelta, ReasoningDelta, TurnDelta
from toolkit.text.turn_style import ThinkTags, TurnStyle

__all__ = ["TurnParser"]


class TurnParser:
    """Parses one turn.

    Args:
        style: How this model writes.
        tools: The functions that may be called; empty: the turn has no calls.
        opens_in_reasoning: Whether the prompt has begun the reasoning already.
        max_calls: Calls beyond these are dropped.
        streams: Whether a call's arguments are told as they come. Else a call is told when it is
            known to be well formed. In both cases one that the end of the text cuts off is told
            as far as it got, if its arguments have begun.

    >>> style = TurnStyle.of("<tool_call>")
    >>> parser = TurnParser(style, tools=["add"], streams=False)
    >>> parser.push('Let me see.\\n<tool_call>{"name": "add", "arg')
    [ContentDelta(text='Let me see.')]
    >>> (delta,) = parser.push('uments": {"a": 1}}</tool_call>')
    >>> delta.name, delta.arguments
    ('add', '{"a": 1}')
    >>> parser.finish()
    []
    """

    def __init__(
        self,
        style: TurnStyle,
        *,
        tools: Collection[str] = (),
        opens_in_reasoning: bool = False,
        max_calls: int | None = None,
        streams: bool = True,
    ) -> None:
        self._source = GrowingText()
        self._told: list[TurnDelta] = []
        self._log = CallLog(
            self._source,
            self._told.append,
            names=frozenset(tools),
            new_id=style.tools.new_id,
            max_calls=max_calls,
            streams=streams,
        )
        self._format = style.tools if tools else None
        self._held = ""  # white space that belongs to the content if more content follows
        self._is_bare = True  # nothing was said that a bare call could not follow
        self._is_after_call = False
        self._content_start: int | None = None
        self._reading = self._turn(style.think, opens_in_reasoning)
        next(self._reading, None)

    @property
    def num_calls(self) -> int:
        """Calls so far."""
        return self._log.num_calls

    @property
    def has_broken_call(self) -> bool:
        """Whether a call that was told has not come to its end (yet): nobody can make it."""
        return self._log.num_open > 0

    @property
    def content_start(self) -> int | None:
        """The place in the text where reasoning ended; None while it goes on."""
        return self._content_start

    def push(self, text: str) -> list[TurnDelta]:
        """Add text; return what it made certain."""
        self._source.add(text)
        return self._go_on()

    def finish(self) -> list[TurnDelta]:
        """Return what was held back: no text follows."""
        self._source.close()
        return self._go_on()

    def _go_on(self) -> list[TurnDelta]:
        next(self._reading, None)
        told = self._told.copy()
        self._told.clear()
        return told

    def _turn(self, think: ThinkTags | None, is_open: bool) -> Reading[None]:
        if think is not None:
            yield from self._read_reasoning(think, is_open)
        self._content_start = self._source.position
        if self._format is None:
            yield from self._read_text()
        else:
            yield from self._read_content()

    def _read_reasoning(self, think: ThinkTags, is_open: bool) -> Reading[None]:
        """Read a block at the start of the turn, without the white space inside and behind it."""
        source = self._source
        yield from source.skip_space()
        if not (yield from source.accept(think.open)) and not is_open:
            source.position = 0
            return
        yield from source.skip_space()
        held = ""
        while True:
            end, found = source.find((think.close,), source.position)
            thought = held + source.text[source.position : end]
            shown = thought.rstrip()
            held = thought[len(shown) :]
            source.position = end
            if shown:
                self._told.append(ReasoningDelta(shown))
            if found is not None:
                source.position += len(found)
                yield from source.skip_space()
                return
            if source.is_closed:
                return
            yield

    def _read_text(self) -> Reading[None]:
        """Read a turn without calls."""
        source = self._source
        while (yield from source.more()):
            self._told.append(ContentDelta(source.text[source.position :]))
            source.position = len(source.text)

    def _read_content(self) -> Reading[None]:
        """Read content with calls in it."""
        assert self._format is not None
        source = self._source
        while (yield from self._find_call()):
            mark = source.position
            yield from self._format.read(self._log)
            if self._log.settled > mark:
                self._held, self._is_after_call = "", True
                source.position = self._log.settled
            else:
                # No call: what looked like one is content, and calls may begin inside of it.
                source.position = mark + len(self._opener(mark))
                self._say(source.text[mark : source.position])
        # White space between a call and the end is part of neither.
        if self._held and not self._is_after_call:
            self._told.append(ContentDelta(self._held))

    def _find_call(self) -> Reading[bool]:
        """Tell the content before the next place where a call may begin; False: there is none."""
        assert self._format is not None
        source = self._source
        if self._is_bare and self._format.starts:
            start = source.position
            yield from source.skip_space()
            if (yield from source.more()) and source.text[source.position] in self._format.starts:
                self._held += source.text[start : source.position]
                return True
            source.position = start
        while True:
            end, found = source.find(self._format.markers, source.position)
            self._say(source.text[source.position : end])
            source.position = end
            if found is not None or source.is_closed:
                return found is not None
            yield

    def _opener(self, mark: int) -> str:
        assert self._format is not None
        text = self._source.text
        return next((each for each in self._format.markers if text.startswith(each, mark)), " ")

    def _say(self, text: str) -> None:
        """Tell content, but hold white space at its end: it is dropped if a call follows."""
        text = self._held + text
        shown = text.rstrip()
        self._held = text[len(shown) :]
        if shown:
            self._told.append(ContentDelta(shown))
            self._is_bare = self._is_after_call = False
