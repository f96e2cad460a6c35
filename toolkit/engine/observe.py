"""Turn what pool and scheduler did into events, for the kinds somebody listens to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from toolkit.clock import Clock
from toolkit.engine import events
from toolkit.engine.events import EventBus
from toolkit.engine.report import StepReport
from toolkit.engine.scheduler import Decision

__all__ = ["BlockEvents", "emit_step_events"]


_BLOCK_EVENTS = frozenset(
    (
        events.BlockTaken,
        events.BlockShared,
        events.BlockCopied,
        events.BlockCached,
        events.BlockEvicted,
        events.BlockFreed,
    )
)


class BlockEvents:
    """The pool's observer: one event per change to a block."""

    def __init__(self, bus: EventBus, clock: Clock, step: Callable[[], int]) -> None:
        self._bus = bus
        self._clock = clock
        self._step = step

    @property
    def is_listening(self) -> bool:
        """Whether anybody listens to events of blocks."""
        return self._bus.wants_any(_BLOCK_EVENTS)

    def block_taken(self, block_id: int, request_id: str) -> None:
        """Emit BlockTaken."""
        if self._bus.wants(events.BlockTaken):
            self._bus.emit(events.BlockTaken(*self._when(), request_id, block_id))

    def block_shared(self, block_id: int, request_id: str) -> None:
        """Emit BlockShared."""
        if self._bus.wants(events.BlockShared):
            self._bus.emit(events.BlockShared(*self._when(), request_id, block_id))

    def block_copied(self, source_id: int, target_id: int, request_id: str) -> None:
        """Emit BlockCopied."""
        if self._bus.wants(events.BlockCopied):
            self._bus.emit(events.BlockCopied(*self._when(), request_id, source_id, target_id))

    def block_cached(self, block_id: int) -> None:
        """Emit BlockCached."""
        if self._bus.wants(events.BlockCached):
            self._bus.emit(events.BlockCached(*self._when(), block_id))

    def block_evicted(self, block_id: int, age_s: float, cause: str) -> None:
        """Emit BlockEvicted."""
        if self._bus.wants(events.BlockEvicted):
            self._bus.emit(events.BlockEvicted(*self._when(), block_id, age_s, cause))

    def block_freed(self, block_id: int, request_id: str) -> None:
        """Emit BlockFreed."""
        if self._bus.wants(events.BlockFreed):
            self._bus.emit(events.BlockFreed(*self._when(), request_id, block_id))

    def _when(self) -> tuple[int, float]:
        return self._step(), self._clock.now()


def emit_step_events(
    bus: EventBus,
    report: StepReport,
    decision: Decision,
    *,
    sampled_s: float,
    ends: Sequence[tuple[str, str, BaseException | None]],
) -> None:
    """Emit one step's events in the order in which they happened.

    Args:
        bus: Who listens.
        report: Of the step.
        decision: What it was planned by.
        sampled_s: When its tokens were sampled.
        ends: Request id, reason and error, if it was one, of each request that ended.
    """
    _emit_decision(bus, report, decision)
    step = report.step
    if bus.wants(events.TokenSampled):
        for update in report.updates:
            for offset, token_id in enumerate(update.token_ids):
                index = update.first_index + offset
                bus.emit(events.TokenSampled(step, sampled_s, update.request_id, index, token_id))
    if bus.wants(events.TextEmitted):
        for update in report.updates:
            if update.text:
                bus.emit(events.TextEmitted(step, report.end_s, update.request_id, update.text))
    for request_id, reason, error in ends:
        if error is not None:
            bus.emit(events.Failed(step, report.end_s, request_id, error))
        else:
            bus.emit(events.Finished(step, report.end_s, request_id, reason))
    if bus.wants(events.StepFinished):
        bus.emit(events.StepFinished(step, report.end_s, report))


def _emit_decision(bus: EventBus, report: StepReport, decision: Decision) -> None:
    step, time_s = report.step, report.start_s
    for victim, for_whom in decision.preempted:
        bus.emit(events.Preempted(step, time_s, victim.id, "blocks", for_whom.id))
    for request in decision.admitted:
        if request.num_preemptions:
            bus.emit(events.Resumed(step, time_s, request.id))
    for request_id, num_tokens in decision.prefix_hits:
        bus.emit(events.PrefixHit(step, time_s, request_id, num_tokens))
    for request_id, cause in decision.refused:
        bus.emit(events.Waited(step, time_s, request_id, cause))
    if bus.wants(events.Scheduled):
        for chunk in report.plan.chunks:
            bus.emit(events.Scheduled(step, time_s, chunk.request_id, chunk.start, chunk.end))
