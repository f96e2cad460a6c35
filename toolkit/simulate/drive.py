"""Let a load come to a simulated engine, and time pass, until everybody has been served."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from toolkit.clock import VirtualClock
from toolkit.engine import Engine
from toolkit.engine.events import Aborted, Failed, Finished
from toolkit.errors import InvalidConfig, InvalidRequest
from toolkit.interrupts import interrupts_held
from toolkit.request import Request, SamplingParams
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.feed import Feed
from toolkit.simulate.progress import progress_bar
from toolkit.simulate.runner import FIRST_MADE_UP, SimulatedRunner

__all__ = ["add_arrival", "drive"]

_STEPS_AT_ONCE = 32  # some 30 ms, for which Ctrl-C has to wait


def drive(
    engine: Engine,
    arrivals: Iterable[Arrival],
    *,
    progress: bool | None = None,
    until_s: float | None = None,
) -> dict[int, str]:
    """Run an engine on a virtual clock under a load; return request ids by arrival id.

    The load begins now. A request comes when it is due, in the middle of a step even, and is in
    line when that step is over; its times count from when it was due. Where there is nothing to do,
    time jumps to the next arrival. What the engine refuses has no id and counts as ended at once.

    Args:
        engine: Of ``Machine.engine()``, or any other whose clock is a ``VirtualClock``.
        arrivals: In the order of ``due_s``, see ``Feed``; may be a stream.
        progress: Whether to show a bar; None shows it where it takes long and somebody looks on.
        until_s: Stop when so many seconds of the load have passed; what is unfinished stays so.

    Raises:
        InvalidConfig: the engine's clock is not a virtual one, or the load is out of order.
    """
    load = _Load(engine, arrivals, math.inf if until_s is None else until_s)
    total = len(arrivals) if isinstance(arrivals, Sized) else None
    bar = progress_bar(total, "Simulating", unit="request", progress=progress)
    with bar, load.listening():
        while not load.is_over:
            with interrupts_held():  # for many steps at once: holding them takes its time too
                for _ in range(_STEPS_AT_ONCE):
                    load.go_on()
            bar.update(load.num_ended - bar.n)
    return load.request_ids


class _Load:
    """A load on its way through an engine."""

    def __init__(self, engine: Engine, arrivals: Iterable[Arrival], until_s: float) -> None:
        if not isinstance(engine.clock, VirtualClock):
            raise InvalidConfig(
                f"drive() needs an engine on a VirtualClock, not {type(engine.clock).__name__}: "
                "Machine(...).engine() has one"
            )
        self.engine, self.clock = engine, engine.clock
        self.origin_s = engine.clock.now()
        self.until_s = until_s
        self.feed = Feed(arrivals)
        self.request_ids: dict[int, str] = {}
        self.unfinished: dict[str, int] = {}  # arrival ids by request id
        self.num_ended = 0
        self.is_over = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of every end for as long as the block lasts."""
        kinds: tuple[Any, ...] = (Finished, Failed, Aborted)
        stops = [self.engine.on(kind, self._on_end) for kind in kinds]
        try:
            yield
        finally:
            for stop in stops:
                stop()

    def go_on(self) -> None:
        """Put in line whoever is due, and run a step; without work, wait for the next arrival."""
        now_s = self.clock.now() - self.origin_s
        due_s = self.feed.next_due_s
        has_work = self.engine.scheduler.has_work
        self.is_over = now_s >= self.until_s or (not has_work and due_s >= self.until_s)
        if self.is_over:
            return
        if not has_work and due_s > now_s:
            self.clock.advance(due_s - now_s)
            now_s = due_s  # which rounding may have missed
        if due_s <= now_s:
            self._add(now_s)
        if self.engine.scheduler.has_work:
            self.engine.step()

    def _add(self, now_s: float) -> None:
        for due_s, arrival_id, arrival in self.feed.take(now_s):
            try:
                request = add_arrival(self.engine, arrival, self.origin_s + due_s)
            except InvalidRequest:  # the record has it as an event
                self._end(arrival_id, now_s)
                continue
            self.request_ids[arrival_id] = request.id
            self.unfinished[request.id] = arrival_id

    def _on_end(self, event: Finished | Failed | Aborted) -> None:
        arrival_id = self.unfinished.pop(event.request_id, None)
        if arrival_id is not None:
            self._end(arrival_id, event.time_s - self.origin_s)

    def _end(self, arrival_id: int, now_s: float) -> None:
        self.feed.ended(arrival_id, now_s)
        self.num_ended += 1


def add_arrival(engine: Engine, arrival: Arrival, arrival_s: float) -> Request:
    """Put an arrival in line, as of a moment of the engine's clock.

    Without tokens of its own its prompt is one token that nobody else has, again and again. Keys of
    blocks that it brings are the names under which the cache keeps its prompt.

    Raises:
        InvalidRequest: it does not fit.
        InvalidConfig: it brings keys, and not one for each full block of its prompt.
    """
    token_ids = arrival.prompt_token_ids
    _, number = engine.intake.numbers  # of the request to come, once for each engine
    if token_ids is None:
        token_ids = (FIRST_MADE_UP + number,) * arrival.num_prompt_tokens
    cache = engine.cache
    num_full = len(token_ids) // cache.block_size
    # A cache that finds no prefixes asks for no names.
    keys = arrival.block_keys if cache.config.enable_prefix_caching else ()
    _require_own_blocks(arrival, engine, num_full)
    request = engine.add(
        token_ids,
        _params(arrival.num_output_tokens),
        priority=arrival.priority,
        arrival_s=arrival_s,
        tags=dict(arrival.tags) if arrival.tags else None,
    )
    if arrival.output_token_ids and isinstance(engine.runner, SimulatedRunner):
        engine.runner.foresee(request, arrival.output_token_ids)
    if keys:
        request.block_hashes = list(keys)
    elif arrival.prompt_token_ids is None:
        # Nobody else has these tokens, nor those to come, so names need not be made of them.
        stem = number.to_bytes(8, "little")
        num_blocks = (len(token_ids) + arrival.num_output_tokens) // cache.block_size
        request.block_hashes = [stem + index.to_bytes(4, "little") for index in range(num_blocks)]
    return request


def _require_own_blocks(arrival: Arrival, engine: Engine, num_full: int) -> None:
    """Refuse keys of other blocks than the engine's, which would be shared by chance or never.

    A prompt that is shorter than a block of its trace has none, and says so by the size alone.
    """
    if not engine.cache.config.enable_prefix_caching:
        return
    size, keys = engine.cache.block_size, arrival.block_keys
    is_other = arrival.key_tokens not in (None, size) and num_full > 0
    if is_other or (keys and len(keys) != num_full):
        of = f" of {arrival.key_tokens} tokens" if is_other else ""
        raise InvalidConfig(
            f"arrival {arrival.arrival_id} has {len(keys)} block_keys{of} for {num_full} full "
            f"blocks of {size} tokens; Workload.arrivals(block_size={size}) makes them of this "
            "engine's blocks, or set the engine's block_size to that of the keys"
        )


@lru_cache(maxsize=4096)
def _params(num_output_tokens: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=num_output_tokens, ignore_eos=True, temperature=0.0, detokenize=False
    )
