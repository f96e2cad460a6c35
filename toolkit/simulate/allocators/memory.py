"""Where the KV memory goes: the parts of figure 2 in Kwon et al. 2023 (PagedAttention)."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from toolkit.engine import Engine
from toolkit.engine.events import StepFinished
from toolkit.errors import InvalidConfig
from toolkit.simulate.allocators.contiguous import ContiguousCache, num_slots_needed

__all__ = ["MemoryMeter", "MemoryUse", "memory_use"]


class MemoryUse(NamedTuple):
    """What the KV slots are there for, at one moment; the parts add up to all of them.

    ``external_fragmentation`` is what the paper calls external fragmentation and other: slots that
    the allocator lost to rounding, and, while a request waits for room, those that are free but of
    no use to it. When nobody waits for room the latter are plainly ``free``.
    """

    token_states: float  # hold the keys and values of a token
    reservation: float  # will, before their request ends
    internal_fragmentation: float  # belong to a request that will never write to them
    external_fragmentation: float
    free: float

    @property
    def num_slots(self) -> float:
        """All of them."""
        return sum(self)

    @property
    def num_allocated(self) -> float:
        """Slots that belong to a request."""
        return self.token_states + self.reservation + self.internal_fragmentation

    def shares(self, *, of: str = "all") -> pd.Series:
        """Return the parts as fractions of "all" slots, or of the "allocated" ones alone.

        The paper's bars differ in this: Orca's are parts of all memory under pressure, vLLM's of
        what its blocks take.

        Raises:
            InvalidConfig: another word than these two.

        >>> float(MemoryUse(15, 4, 1, 0, 80).shares(of="allocated")["token_states"])
        0.75
        """
        if of not in ("all", "allocated"):
            raise InvalidConfig(f'of={of!r} is neither "all" nor "allocated"')
        whole = self.num_slots if of == "all" else self.num_allocated
        names = self._fields if of == "all" else self._fields[:3]
        parts = {name: getattr(self, name) / whole if whole else math.nan for name in names}
        return pd.Series(parts, name=f"share of {of}")


def memory_use(engine: Engine) -> MemoryUse:
    """Return what an engine's KV slots are there for now, between two steps.

    A request is taken to make all of its ``max_tokens``, as it does under ``ignore_eos``.
    """
    cache, size = engine.cache, engine.cache.block_size
    contiguous = cache if isinstance(cache, ContiguousCache) else None
    rounding = 0
    # Of the last block of each table: slots that will be filled, and that never will. Where several
    # tables end in one block, the one that has most of it filled knows best.
    ends: dict[int, tuple[int, int]] = {}
    for request in engine.scheduler.running:
        table = cache.table(request.id)
        given = len(table) * size
        if contiguous is not None:
            given = contiguous.num_reserved(request)
            rounding += len(table) - given
        num_empty = given - request.num_computed_tokens
        to_come = min(max(num_slots_needed(request) - request.num_computed_tokens, 0), num_empty)
        found = ends.get(table[-1])
        if found is None or num_empty < sum(found):
            ends[table[-1]] = (to_come, num_empty - to_come)
    reservation = sum(to_come for to_come, _ in ends.values())
    internal = sum(wasted for _, wasted in ends.values())
    held = cache.pool.num_used * size
    free = cache.num_blocks * size - held
    is_short = engine.scheduler.last_decision.limited_by == "blocks"
    return MemoryUse(
        token_states=held - rounding - reservation - internal,
        reservation=reservation,
        internal_fragmentation=internal,
        external_fragmentation=rounding + (free if is_short else 0),
        free=0 if is_short else free,
    )


class MemoryMeter:
    """Averages over time of where an engine's KV memory goes, and of how many requests run.

    It looks at the end of every step and weighs what it sees by the step's duration; an engine that
    idles is not looked at. A request that ends with a step is gone by then.

    Args:
        engine: The engine to watch, until ``stop()``.
        since_s: Steps that start before this time on its clock do not count: the warm-up.
        every_s: Seconds between two rows of ``table``; 0 keeps a row of every step.
    """

    def __init__(self, engine: Engine, *, since_s: float = 0.0, every_s: float = 1.0) -> None:
        self._engine = engine
        self._since_s = since_s
        self._every_s = every_s
        self._sums = [0.0] * len(MemoryUse._fields)
        self._num_running = 0.0
        self._rows: list[tuple[float, ...]] = []
        self.duration_s = 0.0  # of all steps that were weighed
        self.stop = engine.on(StepFinished, self._look)

    @property
    def mean(self) -> MemoryUse:
        """The average number of slots in each part; NaN before the first step."""
        return MemoryUse(*(self._over_time(each) for each in self._sums))

    @property
    def mean_num_running(self) -> float:
        """Requests that ran at once, on average; NaN before the first step."""
        return self._over_time(self._num_running)

    @property
    def table(self) -> pd.DataFrame:
        """Columns: time_s, num_running, and slots by part; a row every ``every_s``."""
        return pd.DataFrame(self._rows, columns=["time_s", "num_running", *MemoryUse._fields])

    def _look(self, event: StepFinished) -> None:
        report = event.report
        if report.start_s < self._since_s:
            return
        use = memory_use(self._engine)
        weight_s = report.duration_s
        self._sums = [total + weight_s * each for total, each in zip(self._sums, use, strict=True)]
        self._num_running += weight_s * report.num_running
        self.duration_s += weight_s
        if not self._rows or report.end_s - self._rows[-1][0] >= self._every_s:
            self._rows.append((report.end_s, report.num_running, *use))

    def _over_time(self, total: float) -> float:
        return total / self.duration_s if self.duration_s else math.nan
