"""What happens in an engine, as values: one frozen dataclass per kind of event.

Everything that watches an engine (tables, metrics, widgets, ``engine.on``) reads these. Emitting
is free for a kind nobody listens to: ask ``bus.wants(Kind)`` before building one in a hot loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from toolkit.engine.plan import SampledToken, StepPlan
from toolkit.engine.report import RequestUpdate, StepReport

__all__ = [
    "Aborted",
    "BlockCached",
    "BlockCopied",
    "BlockEvicted",
    "BlockFreed",
    "BlockShared",
    "BlockTaken",
    "EnginePaused",
    "Event",
    "EventBus",
    "Failed",
    "Finished",
    "PolicyChanged",
    "Preempted",
    "PrefixHit",
    "Rejected",
    "RequestAdded",
    "RequestUpdate",
    "Resumed",
    "Rewound",
    "SampledToken",
    "Scheduled",
    "StepFinished",
    "StepPlan",
    "StepReport",
    "StepStarted",
    "TextEmitted",
    "TokenSampled",
    "Waited",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in step ``step`` at ``time_s`` on the engine's clock."""

    step: int
    time_s: float


@dataclass(frozen=True, slots=True)
class RequestEvent(Event):
    """Something that happened to one request."""

    request_id: str


@dataclass(frozen=True, slots=True)
class RequestAdded(RequestEvent):
    """A request joined the waiting queue."""

    request: Any


@dataclass(frozen=True, slots=True)
class Rejected(Event):
    """A request was refused before it got an id; ``error`` says why."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Waited(RequestEvent):
    """A request could not start in this step: "budget", "seqs", "blocks", "policy" or "sibling"."""

    cause: str


@dataclass(frozen=True, slots=True)
class Scheduled(RequestEvent):
    """Tokens [start, end) of a request are computed in this step."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Preempted(RequestEvent):
    """A request lost its blocks to ``victim_of`` and will be recomputed."""

    cause: str
    victim_of: str


@dataclass(frozen=True, slots=True)
class Resumed(RequestEvent):
    """A preempted request runs again."""


@dataclass(frozen=True, slots=True)
class PrefixHit(RequestEvent):
    """The next ``num_tokens`` tokens were found in the cache; the first ones, for a newcomer."""

    num_tokens: int


@dataclass(frozen=True, slots=True)
class BlockTaken(RequestEvent):
    """A request took an empty block."""

    block_id: int


@dataclass(frozen=True, slots=True)
class BlockShared(RequestEvent):
    """A request holds a block that has content already."""

    block_id: int


@dataclass(frozen=True, slots=True)
class BlockCopied(RequestEvent):
    """A request got its own copy of a shared block before writing to it."""

    source_id: int
    block_id: int


@dataclass(frozen=True, slots=True)
class BlockCached(Event):
    """A full block can be found by later prompts."""

    block_id: int


@dataclass(frozen=True, slots=True)
class BlockEvicted(Event):
    """A cached block lost its content ``age_s`` after its last use: "capacity" or "reset"."""

    block_id: int
    age_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class BlockFreed(RequestEvent):
    """A request gave a block back."""

    block_id: int


@dataclass(frozen=True, slots=True)
class TokenSampled(RequestEvent):
    """A token was chosen; ``index`` counts the request's output tokens.

    The tokens of a beam search are told when it ends: until then any of them may be replaced.
    """

    index: int
    token_id: int


@dataclass(frozen=True, slots=True)
class TextEmitted(RequestEvent):
    """Text became certain and went to whoever streams the request."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished(RequestEvent):
    """A request ended by itself: "stop" or "length"."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed(RequestEvent):
    """A request ended with an error, alone."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Aborted(RequestEvent):
    """A request was stopped: by "user", "disconnect", "interrupt" or "close"."""

    by: str


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """A step begins."""


@dataclass(frozen=True, slots=True)
class StepFinished(Event):
    """A step ended; ``report`` holds its plan, its result and what became of each request."""

    report: StepReport


@dataclass(frozen=True, slots=True)
class PolicyChanged(Event):
    """Another scheduling policy decides from the next step on."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Rewound(Event):
    """The engine went back to just before ``step``; ``from_step`` would have been next."""

    from_step: int


@dataclass(frozen=True, slots=True)
class EnginePaused(Event):
    """The loop thread stands still until it is resumed."""


E = TypeVar("E", bound=Event)


class EventBus:
    """Hand each event to those who asked for its kind.

    >>> bus, seen = EventBus(), []
    >>> unsubscribe = bus.on(EnginePaused, seen.append)
    >>> bus.emit(EnginePaused(step=3, time_s=0.5))
    >>> unsubscribe(); bus.wants(EnginePaused), seen[0].step
    (False, 3)
    """

    def __init__(self) -> None:
        self._listeners: dict[type[Event], list[Callable[[Any], object]]] = {}
        self._lock = threading.Lock()  # held to change the lists, not to read them

    def on(self, kind: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        """Call ``listener`` with every event of this kind; return how to stop it.

        Raises:
            TypeError: ``kind`` is not one of this module's classes, or one that only others are
                made from.
        """
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            raise TypeError(f"give a class of toolkit.engine.events, such as Finished: {kind!r}")
        if kind in (Event, RequestEvent):
            raise TypeError(
                f"nothing that happens is just a {kind.__name__}: give the kinds that you want, "
                "one by one, such as Finished"
            )
        # A new list each time: an emit under way goes on with the old one.
        with self._lock:
            self._listeners[kind] = [*self._listeners.get(kind, ()), listener]
        subscribed = [True]

        def unsubscribe() -> None:
            if subscribed and subscribed.pop():
                self._detach(kind, listener)

        return unsubscribe

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody listens to this kind."""
        return kind in self._listeners

    def wants_any(self, kinds: frozenset[type[Event]]) -> bool:
        """Whether anybody listens to one of these kinds."""
        return not kinds.isdisjoint(self._listeners)

    def emit(self, event: Event) -> None:
        """Call the kind's listeners; one that raises is detached with one warning."""
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except BaseException:
                # exit() too: whoever emits may be halfway through a change to the blocks. Ctrl-C
                # does not come here, because the engine holds interrupts while it emits.
                kind = type(event)
                message = "detached the observer %r of %s because it raised:"
                logger.warning(message, listener, kind.__name__, exc_info=True)
                self._detach(kind, listener)

    def _detach(self, kind: type[Event], listener: Callable[[Any], object]) -> None:
        # A new list each time, as in ``on``; of twins, one goes.
        with self._lock:
            left = list(self._listeners.get(kind, ()))
            if listener in left:
                left.remove(listener)
            if left:
                self._listeners[kind] = left
            else:
                self._listeners.pop(kind, None)
