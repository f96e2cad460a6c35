"""Derive an engine's past: play a journal through the same scheduler, without computing anything.

A step costs what scheduling costs. Nothing here reaches the engine whose journal it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from toolkit.clock import RecordedClock
from toolkit.engine.entries import (
    Added,
    Base,
    Changed,
    Ended,
    Entry,
    PolicyChosen,
    Reset,
    Stepped,
    pristine,
)
from toolkit.engine.plan import Restoration, StepPlan, StepResult
from toolkit.engine.report import StepReport
from toolkit.engine.restoration import Footprints
from toolkit.errors import EngineError
from toolkit.request import Request

__all__ = ["Player", "RecordedRunner", "reborn", "restarted"]


class RecordedRunner:
    """Answers what was answered before, as long as it is asked the same."""

    def __init__(self) -> None:
        self.footprints = Footprints(1)
        self.current: Stepped | None = None
        self.abandon: Callable[[], object] = lambda: None

    def begin(self, engine: Any, base: Base) -> None:
        """Serve an engine that is to begin where a journal does."""
        self.footprints = Footprints(engine.cache.block_size)
        self.footprints.note_contents(base.contents, engine.cache.num_blocks)
        self.abandon = lambda: engine.scheduler.abandon()

    def prepare(self, request: Request) -> None:
        """Take every request: it was taken before."""

    def run(self, plan: StepPlan) -> StepResult:
        """Return the result of the step that is being played.

        Raises:
            EngineError: the plan is not the one of that step.
        """
        entry = self.current
        if entry is None:
            raise EngineError("the recording ends here, and there is no model to go on with")
        require_likeness(entry, plan)
        self.footprints.note(plan, is_lost=entry.is_lost)
        if entry.is_lost:
            self.abandon()
        return entry.result

    def release(self, request_id: str) -> None:
        """Hold nothing."""

    def close(self) -> None:
        """Hold nothing."""


class Player:
    """Does to an engine what was done to another one, entry by entry.

    Args:
        engine: A blank one; its clock is ``clock``.
        clock: Set to the times of the journal.
        restart: Makes the requests of an entry: ``reborn``, or ``restarted`` for the same objects.
        prepares: Whether the engine's runner has to see requests before they run.
    """

    def __init__(
        self,
        engine: Any,
        clock: RecordedClock,
        restart: Callable[[Added], tuple[Request, ...]],
        *,
        prepares: bool = False,
    ) -> None:
        self.engine = engine
        self.requests: dict[str, Request] = {}
        self.is_playing = False
        self._clock = clock
        self._restart = restart
        self._prepares = prepares
        self._unready: dict[str, int] = {}  # the last step that waited for a grammar
        self._gates: dict[str, tuple[Request, Future[Any] | None]] = {}
        engine.preparation_wait_s = 0.0

    def begin(self, base: Base) -> None:
        """Put the engine where a journal begins."""
        engine = self.engine
        engine.intake.numbers = base.num_requests, base.num_samples
        engine.scheduler.start_at(base.step)
        engine.step_number = max(0, base.step - 1)
        engine.begin_journal(base)
        if base.pool is not None:
            engine.cache.pool.set_state(base.pool)

    def play_all(self, entries: Iterable[Entry]) -> None:
        """Play entries in order."""
        entries = list(entries)
        self.expect(entries)
        for entry in entries:
            self.play(entry)

    def expect(self, entries: Iterable[Entry]) -> None:
        """Look ahead for when each grammar was compiled."""
        for entry in entries:
            if isinstance(entry, Stepped):
                self._unready.update(dict.fromkeys(entry.unready_ids, entry.step))

    def play(self, entry: Entry) -> StepReport | None:
        """Do what an entry says; return the report if it is a step."""
        self.is_playing = True
        try:
            if isinstance(entry, Stepped):
                return self._step(entry)
            self._act(entry)
            return None
        finally:
            self.is_playing = False

    def _act(self, entry: Entry) -> None:
        engine = self.engine
        if isinstance(entry, Added):
            self._add(entry)
        elif isinstance(entry, Ended):
            request = engine.scheduler.get(entry.request_id)
            if request is not None:  # on another machine it may have ended by itself
                self._clock.now_s = entry.time_s
                engine.end_early(request, entry.status, entry.reason, entry.error, entry.by)
        elif isinstance(entry, Changed):
            engine.change(
                entry.request_id, priority=entry.priority, params=entry.params, tags=entry.tags
            )
        elif isinstance(entry, PolicyChosen):
            engine.scheduler.policy = pristine(entry.policy)
        elif isinstance(entry, Reset):
            engine.reset_prefix_cache()

    def _add(self, entry: Added) -> None:
        samples = self._restart(entry)
        self.engine.intake.begin(samples)
        for sample in samples:
            self.requests[sample.id] = sample
            real = None
            if self._prepares:
                self.engine.runner.prepare(sample)
                real = sample.preparation
            if sample.params.structured_outputs is not None:
                sample.preparation = Future()  # done when the one of then was
                self._gates[sample.id] = sample, real
        self._clock.now_s = entry.queued_s
        self.engine.enqueue(samples)

    def _step(self, entry: Stepped) -> StepReport:
        for request_id in [i for i in self._gates if self._unready.get(i, -1) < entry.step]:
            request, real = self._gates.pop(request_id)
            if real is None:
                request.preparation = None
            else:
                request.preparation = real
                real.exception()  # wait for it
        engine, clock = self.engine, self._clock
        times = entry.clock._asdict()

        def read(moment: str) -> float:
            clock.now_s = times[f"{moment}_s"]
            return clock.now_s

        engine.read_clock = read
        if isinstance(engine.runner, RecordedRunner):
            engine.runner.current = entry
        try:
            report: StepReport = engine.step()
        finally:
            engine.read_clock = lambda moment: clock.now_s
        if isinstance(engine.runner, RecordedRunner):
            engine.runner.current = None
            require_likeness(entry, report.plan)  # an empty plan never reaches the runner
        return report

    def restoration(self) -> Restoration:
        """Return what a runner must compute to stand where a recorded one stands now."""
        engine = self.engine
        scheduler, cache = engine.scheduler, engine.cache
        pooling = {r.id for r in scheduler.unfinished if r.pooling is not None}
        footprints = engine.runner.footprints
        steps = footprints.needed_for(cache, scheduler.running, whole=pooling)
        return Restoration(
            steps=steps,
            unfinished=scheduler.unfinished,
            tables={r.id: tuple(cache.table(r.id)) for r in scheduler.running},
            num_found=footprints.num_found,
            requests=self.requests,
        )


def reborn(entry: Added) -> tuple[Request, ...]:
    """Return new requests that ask for what an entry's did when they joined the line."""
    return _as_asked(entry, tuple(sample.reborn() for sample in entry.samples))


def restarted(entry: Added) -> tuple[Request, ...]:
    """Return an entry's own requests, as they were when they joined the line."""
    for sample in entry.samples:
        sample.forget()
    return _as_asked(entry, entry.samples)


def _as_asked(entry: Added, samples: tuple[Request, ...]) -> tuple[Request, ...]:
    for sample, params in zip(samples, entry.params, strict=True):
        sample.priority, sample.tags = entry.priority, dict(entry.tags)
        sample.params, sample.max_tokens = params, entry.max_tokens
        sample.preparation = None
    return samples


def require_likeness(entry: Stepped, plan: StepPlan) -> None:
    """Raise EngineError unless a plan is the one of a step that was recorded."""
    if not entry.is_like(plan):
        raise EngineError(
            f"step {entry.step} comes out differently when it is played again, so it does not "
            "follow from what was written down: the policy is no function of what it is shown, or "
            "a request was changed by hand (engine.change(...) writes it down)"
        )
