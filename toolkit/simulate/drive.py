"""Let a load come to a simulated engine, and time pass, until everybody has been served."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from toolkit.clock import VirtualClock
from toolkit.engine import Engine
from toolkit.engine.events import Aborted, Failed, Finished
from toolkit.errors import InvalidConfig, InvalidRequest
from toolkit.request import Request, SamplingParams
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.feed import Feed
from toolkit.simulate.progress import progress_bar
from toolkit.simulate.runner import FIRST_MADE_UP

__all__ = ["add_arrival", "drive"]


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
    clock = engine.clock
    if not isinstance(clock, VirtualClock):
        raise InvalidConfig(
            f"drive() needs an engine on a VirtualClock, not {type(clock).__name__}: "
            "Machine(...).engine() has one"
        )
    origin_s = clock.now()
    feed = Feed(arrivals)
    total = len(arrivals) if hasattr(arrivals, "__len__") else None
    request_ids: dict[int, str] = {}
    unfinished: dict[str, int] = {}
    with progress_bar(total, "Simulating", unit="request", progress=progress) as bar:

        def end(event: Any) -> None:
            arrival_id = unfinished.pop(event.request_id, None)
            if arrival_id is not None:
                feed.ended(arrival_id, event.time_s - origin_s)
                bar.update()

        kinds: tuple[Any, ...] = (Finished, Failed, Aborted)
        unsubscribe = [engine.on(kind, end) for kind in kinds]
        try:
            while until_s is None or clock.now() - origin_s < until_s:
                now_s = clock.now() - origin_s
                due_s = feed.next_due_s
                if due_s > now_s and not engine.scheduler.has_work:
                    if due_s == float("inf") or (until_s is not None and due_s >= until_s):
                        break
                    clock.advance(due_s - now_s)
                    now_s = due_s  # which rounding may have missed
                if due_s <= now_s:
                    for due in feed.take(now_s):
                        try:
                            request = add_arrival(engine, due.arrival, origin_s + due.due_s)
                        except InvalidRequest:  # the record has it as an event
                            feed.ended(due.arrival_id, now_s)
                            bar.update()
                            continue
                        request_ids[due.arrival_id] = request.id
                        unfinished[request.id] = due.arrival_id
                if engine.scheduler.has_work:
                    engine.step()
        finally:
            for stop in unsubscribe:
                stop()
    return request_ids


def add_arrival(engine: Engine, arrival: Arrival, arrival_s: float) -> Request:
    """Put an arrival in line, as of a moment of the engine's clock.

    Without tokens of its own its prompt is one token that nobody else has, again and again. Keys of
    blocks that it brings are the names under which the cache keeps its prompt.

    Raises:
        InvalidRequest: it does not fit.
        InvalidConfig: it brings more keys than its prompt has full blocks.
    """
    token_ids = arrival.prompt_token_ids
    if token_ids is None:
        token_ids = (FIRST_MADE_UP + arrival.arrival_id,) * arrival.num_prompt_tokens
    num_full = len(token_ids) // engine.cache.block_size
    if len(arrival.block_keys) > num_full:
        raise InvalidConfig(
            f"arrival {arrival.arrival_id} has {len(arrival.block_keys)} block_keys for "
            f"{num_full} full blocks of {engine.cache.block_size} tokens; set the engine's "
            "block_size to that of the keys"
        )
    request = engine.add(
        token_ids,
        _params(arrival.num_output_tokens),
        priority=arrival.priority,
        arrival_s=arrival_s,
        tags=dict(arrival.tags) if arrival.tags else None,
    )
    if arrival.output_token_ids:
        engine.runner.foresee(request, arrival.output_token_ids)
    if arrival.block_keys:
        request.block_hashes = list(arrival.block_keys)
    return request


@lru_cache(maxsize=4096)
def _params(num_output_tokens: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=num_output_tokens, ignore_eos=True, temperature=0.0, detokenize=False
    )
