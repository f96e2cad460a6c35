"""Add up what happens in an engine, at a cost per step that hardly grows with its requests.

A step takes a fixed number of Python calls: all requests that also got a token in the step before
share one inter-token latency, so they are counted, not visited. Only the first token and the end
of a request cost something of their own. The engine's thread writes; readers take no lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from toolkit.engine.events import (
    Aborted,
    BlockEvicted,
    BlockShared,
    BlockTaken,
    EnginePaused,
    Failed,
    Finished,
    RequestAdded,
    StepFinished,
    StepReport,
    StepStarted,
)
from toolkit.record.block_lives import BlockLives
from toolkit.record.histogram import GAP_BOUNDS_S, STEP_TOKENS_BOUNDS, TOKEN_BOUNDS_S, Histogram
from toolkit.record.host_gap import HostGap
from toolkit.record.request_counts import RequestCounts
from toolkit.request import Request

__all__ = ["EngineCounts", "WatchedEngine"]

# What a request can wait for beside capacity: a rule, a sibling, or its grammar.
_DEFERRED = frozenset(("policy", "sibling", "grammar"))


class WatchedEngine(Protocol):
    """What the counts need of an engine."""

    @property
    def config(self) -> Any:
        """Limits, cache size, policy."""
        ...

    @property
    def scheduler(self) -> Any:
        """Who waits and who runs."""
        ...

    @property
    def cache(self) -> Any:
        """The blocks."""
        ...

    def on(self, kind: type[Any], listener: Callable[[Any], object]) -> Callable[[], None]:
        """Subscribe to events."""
        ...


class EngineCounts:
    """Counters and histograms of one engine, from ``attach()`` to ``detach()``."""

    def __init__(self, engine: WatchedEngine) -> None:
        self.engine = engine
        self.num_steps = 0
        self.num_preemptions = 0
        self.generation_tokens = 0
        self.step_tokens = Histogram(STEP_TOKENS_BOUNDS)
        self.inter_token_s = Histogram(TOKEN_BOUNDS_S)
        self.host_gap_s = Histogram(GAP_BOUNDS_S)
        self.requests = RequestCounts(
            max_model_len=engine.config.scheduler.max_model_len,
            asks_prefix_cache=engine.config.cache.enable_prefix_caching,
        )
        self.blocks = BlockLives()
        self._live: dict[str, Request] = {}
        self._ended: list[str] = []  # in this step, whose tokens are not counted yet
        self._is_in_step = False
        self._newest: set[str] = set()  # who got a token in the last step that made any,
        self._newest_s = 0.0  # and when it ended
        self._stalled_s: dict[str, float] = {}  # last token of those who then got none
        self._waiting: tuple[tuple[str, str], ...] = ()
        self._host_gap = HostGap()
        self._detach: list[Callable[[], None]] = []

    def attach(self) -> None:
        """Listen to the engine."""
        listeners: dict[type[Any], Callable[[Any], object]] = {
            RequestAdded: self._on_added,
            StepStarted: self._on_step_started,
            StepFinished: self._on_step,
            EnginePaused: lambda event: self._host_gap.on_paused(),
            BlockTaken: self.blocks.on_taken,
            BlockShared: self.blocks.on_shared,
            BlockEvicted: self.blocks.on_evicted,
            **dict.fromkeys((Finished, Failed, Aborted), self._on_end),
        }
        self._detach = [self.engine.on(kind, listener) for kind, listener in listeners.items()]

    def detach(self) -> None:
        """Listen no more; the counts stay. Idempotent."""
        while self._detach:
            self._detach.pop()()

    def waiting_by_reason(self) -> Counter[str]:
        """Return how many wait now, for capacity or deferred by something else."""
        num_waiting = self.engine.scheduler.num_waiting
        deferred = min(num_waiting, sum(cause in _DEFERRED for _, cause in self._waiting))
        return Counter(capacity=num_waiting - deferred, deferred=deferred)

    # ---- events, on the engine's thread

    def _on_added(self, event: RequestAdded) -> None:
        self._live[event.request_id] = event.request
        self._host_gap.on_added(event.time_s)

    def _on_step_started(self, event: StepStarted) -> None:
        self._settle_ended()  # of a step that broke off
        self._is_in_step = True

    def _on_step(self, event: StepFinished) -> None:
        report = event.report
        self._is_in_step = False
        self.num_steps += 1
        self.num_preemptions += len(report.plan.preempted_ids)
        self._waiting = report.waiting
        if report.plan.num_tokens:
            self.step_tokens.observe(report.plan.num_tokens)
        self._count_tokens(report)
        if self._ended:
            self._settle_ended()
        has_work = self.engine.scheduler.has_work
        gap_s = self._host_gap.on_step(
            start_s=report.start_s, end_s=report.end_s, has_work=has_work
        )
        self.host_gap_s.observe(gap_s)

    def _on_end(self, event: Finished | Failed | Aborted) -> None:
        self._ended.append(event.request_id)
        if not self._is_in_step:
            self._settle_ended()

    # ---- small things

    def _count_tokens(self, report: StepReport) -> None:
        got = {update.request_id for update in report.updates if update.token_ids}
        if not got:
            return
        self.generation_tokens += sum([len(update.token_ids) for update in report.updates])
        steady = got & self._newest
        if steady:
            self.inter_token_s.observe(report.end_s - self._newest_s, times=len(steady))
        for request_id in self._newest - got:
            if request_id in self._live:
                self._stalled_s[request_id] = self._newest_s
        for request_id in got - steady:
            stalled_s = self._stalled_s.pop(request_id, None)
            if stalled_s is not None:
                self.inter_token_s.observe(report.end_s - stalled_s)
            elif request_id in self._live:
                self.requests.count_first_token(self._live[request_id])
        self._newest, self._newest_s = got, report.end_s

    def _settle_ended(self) -> None:
        for request_id in self._ended:
            self._stalled_s.pop(request_id, None)
            request = self._live.pop(request_id, None)
            if request is not None:
                self.requests.count_end(request)
        self._ended.clear()
