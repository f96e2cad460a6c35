"""Several engines, each on a virtual clock of its own, moved on in the order of one time line.

A step is computed when it begins and known of when it ends: whoever looks at a replica in between,
such as a router when a request arrives, does not see what the step will have finished. At one
moment, ends come before arrivals, and arrivals before the steps that begin.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Sized
from types import TracebackType
from typing import Any

from toolkit.cache.blocks import block_hashes
from toolkit.clock import VirtualClock
from toolkit.engine import Engine
from toolkit.engine.events import Aborted, Failed, Finished
from toolkit.errors import InvalidConfig, InvalidRequest
from toolkit.request import Request
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.drive import add_arrival
from toolkit.simulate.feed import Feed
from toolkit.simulate.progress import progress_bar

__all__ = ["Load", "Replica", "Timeline"]

_ENDS, _ARRIVES, _BEGINS = range(3)

# replica, arrival, its request (None: the engine refused it)
OnEnd = Callable[["Replica", Arrival, "Request | None"], object]


class Timeline:
    """Things to do, each at its time; ``now_s`` counts from the start of the load.

    >>> line, seen = Timeline(), []
    >>> line.arrival(2.0, lambda: seen.append(line.now_s))
    >>> line.arrival(1.0, lambda: seen.append(line.now_s))
    >>> line.run()
    >>> seen
    [1.0, 2.0]
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, int, Callable[[], object]]] = []

    def arrival(self, time_s: float, action: Callable[[], object]) -> None:
        """Do something when a request arrives: after what ends then, before what begins."""
        self._at(time_s, _ARRIVES, action)

    def end(self, time_s: float, action: Callable[[], object]) -> None:
        """Do something when a step ends."""
        self._at(time_s, _ENDS, action)

    def begin(self, time_s: float, action: Callable[[], object]) -> None:
        """Do something when a step begins."""
        self._at(time_s, _BEGINS, action)

    def run(self) -> None:
        """Do everything, what is added meanwhile too, in the order of time."""
        while self._heap:
            self.now_s, _, _, action = heapq.heappop(self._heap)
            action()

    def _at(self, time_s: float, order: int, action: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (time_s, order, next(self._numbers), action))


class Load:
    """The arrivals of a load on a time line, with a progress bar for as long as it is entered.

    Args:
        arrivals: In the order of ``due_s``, see ``Feed``; may be a stream.
        timeline: Where they come.
        deliver: Called with each arrival and when it is due, at that time.
        progress: Whether to show the bar; None shows it where it takes long and somebody looks on.
    """

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        timeline: Timeline,
        deliver: Callable[[Arrival, float], object],
        *,
        progress: bool | None = None,
    ) -> None:
        total = len(arrivals) if isinstance(arrivals, Sized) else None
        self._feed = Feed(arrivals)
        self._timeline = timeline
        self._deliver = deliver
        self._bar = progress_bar(total, "Simulating", unit="request", progress=progress)
        self._planned_s = math.inf  # when the next look at the feed is
        self._plan()

    def ended(self, arrival_id: int) -> None:
        """Note that one has ended now, well or not: who follows it has a time."""
        self._feed.ended(arrival_id, self._timeline.now_s)
        self._bar.update()
        self._plan()

    def _plan(self) -> None:
        due_s = self._feed.next_due_s
        if due_s < self._planned_s:
            self._planned_s = due_s
            self._timeline.arrival(due_s, self._come)

    def _come(self) -> None:
        self._planned_s = math.inf
        for due in self._feed.take(self._timeline.now_s):
            self._deliver(due.arrival, due.due_s)
        self._plan()

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()


class Replica:
    """One engine on a time line, as a router may see it now.

    ``engine`` itself may be ahead by the step that it is in.

    Args:
        index: Its number, from 0.
        engine: On a ``VirtualClock`` at 0, with nothing in it.
        timeline: What moves it on.
        on_end: Told of everybody who ends, when it is known.
    """

    def __init__(self, index: int, engine: Engine, timeline: Timeline, on_end: OnEnd) -> None:
        clock = engine.clock
        if not isinstance(clock, VirtualClock):
            raise InvalidConfig(
                f"a replica's engine needs a VirtualClock, not {type(clock).__name__}: "
                "Machine(...).engine() has one"
            )
        self.index = index
        self.engine = engine
        self.num_unfinished = 0  # requests given to it that are not known to have ended
        self.arrival_ids: dict[str, int] = {}  # by request id, of all that it took
        self._clock = clock
        self._timeline = timeline
        self._on_end = on_end
        self._inside: dict[str, tuple[Arrival, Request]] = {}
        self._ended: list[str] = []
        self._is_stepping = False
        for kind in (Finished, Failed, Aborted):
            engine.on(kind, self._note_end)

    def cached_tokens(self, arrival: Arrival) -> int:
        """Return how many of an arrival's first tokens are in this replica's prefix cache.

        Blocks that a step fills count from its beginning on, as they do within the engine.
        """
        size = self.engine.cache.block_size
        keys = arrival.block_keys
        if not keys and arrival.prompt_token_ids is not None:
            keys = tuple(block_hashes(arrival.prompt_token_ids, size))
        find = self.engine.cache.pool.find
        num_found = sum(1 for _ in itertools.takewhile(lambda key: find(key) is not None, keys))
        return num_found * size

    def add(self, arrival: Arrival, due_s: float) -> None:
        """Put an arrival in line now; its times count from ``due_s``."""
        if not self._is_stepping:
            self._catch_up()
        self.num_unfinished += 1
        try:
            request = add_arrival(self.engine, arrival, due_s)
        except InvalidRequest:  # the record has it as an event
            self.num_unfinished -= 1
            self._on_end(self, arrival, None)
            return
        self.arrival_ids[request.id] = arrival.arrival_id
        self._inside[request.id] = arrival, request
        if not self._is_stepping:
            self._begin()

    def _begin(self) -> None:
        self._is_stepping = True
        self._timeline.begin(self._timeline.now_s, self._step)

    def _step(self) -> None:
        self._catch_up()
        self.engine.step()
        self._timeline.end(self._clock.now(), self._finish)

    def _finish(self) -> None:
        self._is_stepping = False
        ended, self._ended = self._ended, []
        for request_id in ended:
            self.num_unfinished -= 1
            self._on_end(self, *self._inside.pop(request_id))
        if self.engine.scheduler.has_work and not self._is_stepping:
            self._begin()

    def _catch_up(self) -> None:
        self._clock.advance(max(self._timeline.now_s - self._clock.now(), 0.0))

    def _note_end(self, event: Any) -> None:
        self._ended.append(event.request_id)

    def __repr__(self) -> str:
        return f"Replica({self.index}, {self.num_unfinished} unfinished)"
