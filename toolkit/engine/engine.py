"""The batching engine: requests go in, steps run, tokens and events come out.

Request path 2/8: from llm, to engine.scheduler. A step is three lines:

    plan = self.scheduler.schedule(now)
    result = self.runner.run(plan)
    progress = self.scheduler.update(plan, result, now)
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from toolkit.beam_search_params import BeamSearchParams
from toolkit.cache.blocks import BlockSnapshot, PagedCache
from toolkit.clock import Clock, WallClock
from toolkit.config import EngineConfig
from toolkit.engine import events
from toolkit.engine.entries import Base, Changed, Ended, PolicyChosen, Reset, StepClock, pristine
from toolkit.engine.intake import Intake, as_hooks
from toolkit.engine.journal import Journal, NoJournal
from toolkit.engine.loop import EngineLoop
from toolkit.engine.observe import BlockEvents, emit_step_events
from toolkit.engine.plan import SampledToken, StepPlan, StepResult
from toolkit.engine.policies import resolve_policy
from toolkit.engine.policy import Policy
from toolkit.engine.protocols import RecordsEvents, Runner, TextPort
from toolkit.engine.report import MOST_NAMED, BlockCounts, RequestUpdate, StepReport
from toolkit.engine.rewind import base_of, require_changeable, rewind
from toolkit.engine.scheduler import Progress, Scheduler
from toolkit.engine.snapshot import EngineSnapshot, RequestSnapshot
from toolkit.engine.streams import PieceSink
from toolkit.errors import EngineClosed, EngineError, EngineIsRunning, InvalidRequest
from toolkit.interrupts import interrupts_held
from toolkit.request import (
    FinishReason,
    OutputPiece,
    PoolingParams,
    Request,
    RequestOrigin,
    SamplingParams,
    Status,
)

__all__ = ["Engine"]

logger = logging.getLogger(__name__)

_PREPARATION_WAIT_S = 0.02
# Made once per token: calling the class takes three times as long.
_new_update = partial(tuple.__new__, RequestUpdate)
E = TypeVar("E", bound=events.Event)
T = TypeVar("T")


class Engine:
    """Continuous batching over a runner, one step at a time or from a thread of its own.

    Args:
        runner: Computes a plan: a model, a simulated machine or a recording.
        config: Limits, cache size, policy, seed.
        text: Tokenizer and detokenizer; without one, prompts are token ids and no text is made.
        clock: Where times come from; wall time by default.
        cache: The KV cache as the scheduler counts it, where it is not the paged one that
            ``config.cache`` describes; such an engine cannot go back.
        journal: ``NoJournal()`` where nobody will want to go back.
        recorder: Turns events into tables; ``engine.record``.
        sampler: What ``engine.sampler`` shows.
        hooks: What ``engine.hooks`` shows; None where the runner shows no activations.
        eos_token_ids: Tokens that end a sequence, where there is no ``text`` to say which.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        *,
        text: TextPort | None = None,
        clock: Clock | None = None,
        cache: PagedCache | None = None,
        journal: Journal | None = None,
        recorder: RecordsEvents | None = None,
        sampler: Any = None,
        hooks: Any = None,
        eos_token_ids: Collection[int] = (),
    ) -> None:
        self.runner = runner
        self.config = config
        self.clock = clock or WallClock()
        self.journal = Journal(config.policy) if journal is None else journal
        self.cache = PagedCache(config.cache, clock=self.clock) if cache is None else cache
        self._has_own_cache = cache is not None
        self.scheduler = Scheduler(
            config.scheduler,
            self.cache,
            config.policy,
            policy_chosen=self._on_policy_chosen,
            policy_changed=self._on_policy_changed,
        )
        self.sampler = sampler
        self.hooks = hooks
        self.text = text
        self.events = events.EventBus()
        self.step_number = 0
        # Read at the moments of a step; what plays a journal sets it to what the clock said then.
        self.read_clock: Callable[[str], float] = lambda moment: self.clock.now()
        # A step in which nobody could start lasts this long at most: then it looks who has come.
        self.preparation_wait_s = _PREPARATION_WAIT_S
        self.intake = Intake(config, self.clock, text, eos_token_ids)
        self._sinks: dict[str, PieceSink] = {}  # by the id of a request's first sample
        self._outbox: list[tuple[str, PieceSink, OutputPiece]] = []
        self.leaders: dict[str, Request] = {}  # first samples of unfinished requests
        self._closed = False
        self._is_kept = False
        self._is_lost = False  # the step in progress: its runner raised
        self._num_drivers = 0
        self._drivers_lock = threading.Lock()
        self._loop = EngineLoop(self._guarded_step, lambda: self.scheduler.has_work)
        self.record: Any = recorder
        self.use_clock(self.clock)
        self.journal.engine = weakref.ref(self)
        self.journal.origin_s = self.clock.now()
        if recorder is not None:
            recorder.attach(self)
        self._show_journal()

    # ---- requests

    def add(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | BeamSearchParams | PoolingParams | None = None,
        *,
        priority: int = 0,
        arrival_s: float | None = None,
        tags: dict[str, Any] | None = None,
        hooks: Any = (),
        cache_salt: str | None = None,
        origin: RequestOrigin | None = None,
        sink: PieceSink | None = None,
        tokenize_s: float = 0.0,
    ) -> Request:
        """Put a request in line and return it; it runs as the engine steps.

        Args:
            prompt: Text, or token ids.
            params: How to sample, to search with beams, or to pool the prompt's hidden states into
                an embedding; vLLM's defaults when None.
            priority: Smaller is more urgent under the ``priority`` policy.
            arrival_s: When it arrived on the engine's clock; now by default.
            tags: Whatever the caller wants policies, processors and tables to see.
            hooks: Of this request's activations: ``toolkit.Hook``, ``Steer``, ``Patch``, or
                several of them.
            cache_salt: Requests share cached prefixes only within one salt.
            origin: The HTTP call it came from.
            sink: Called on the engine's thread with each new piece.
            tokenize_s: What the caller spent on making tokens of the prompt.

        Raises:
            InvalidRequest: this request cannot be served; the engine is unaffected.
            EngineClosed: after ``close()``.
        """
        self._require_open()
        params = params if params is not None else SamplingParams()
        samples: tuple[Request, ...] = ()
        try:
            own_hooks = as_hooks(hooks)
            if own_hooks and self.hooks is None:
                raise InvalidRequest(
                    "this engine shows no activations: its runner has no model, or "
                    "Engine(hooks=runner.hooks) was left out",
                    param="hooks",
                )
            samples = self.intake.samples(
                prompt,
                params,
                priority=priority,
                arrival_s=arrival_s,
                tags={} if tags is None else tags,
                hooks=own_hooks,
                cache_salt=cache_salt,
                origin=origin,
                tokenize_s=tokenize_s,
            )
            for sample in samples:
                self.runner.prepare(sample)
        except BaseException as error:
            for sample in samples:
                self.runner.release(sample.id)
            if isinstance(error, InvalidRequest):
                self.emit(events.Rejected, error=error)
            raise
        if sink is not None:
            self._sinks[samples[0].id] = sink
        # Not waiting for the step in progress: an event loop may be calling.
        with interrupts_held():
            self._loop.post(lambda: self.enqueue(samples))
        return samples[0]

    def abort(self, request_id: str | Request, *, by: str = "user") -> bool:
        """End a request and all its samples now; return whether it was unfinished.

        The id of a further sample ends that one alone; that of a beam ends the whole search.
        """
        request_id = request_id.id if isinstance(request_id, Request) else request_id
        is_unfinished = self._find(request_id) is not None
        return self._change(lambda: self._abort(request_id, by), is_unfinished)

    # ---- steps

    def step(self) -> StepReport:
        """Run one step on this thread and say what it did.

        Raises:
            EngineIsRunning: the loop thread drives the engine; use ``with engine.paused():``.
        """
        self._require_open()
        if self._loop.is_running:
            raise EngineIsRunning(
                "the engine's thread is running it; wrap this in `with engine.paused():` "
                "or call engine.pause() first"
            )
        if self._loop.is_inside_step:
            raise EngineIsRunning("a step is in progress: an observer cannot run another one")
        with interrupts_held():
            return self._loop.run_step(lambda: self._step(names_line=True))

    def run_until_idle(self) -> StepReport | None:
        """Step until every request has ended; return the last report, None if there was no work."""
        return self.run_until(lambda report: False)

    def run_until(
        self, stop: type[events.Event] | Callable[[StepReport], bool]
    ) -> StepReport | None:
        """Step until an event of a kind, or until ``stop(report)`` is true, or until idle."""
        if not isinstance(stop, type) and not callable(stop):
            raise TypeError(f"give an event class or a function of the report, not {stop!r}")
        if isinstance(stop, type):
            seen: list[events.Event] = []
            unsubscribe = self.events.on(stop, seen.append)
            try:
                return self.run_until(lambda report: bool(seen))
            finally:
                unsubscribe()
        report = None
        while self.scheduler.has_work:
            report = self.step()
            if stop(report):
                break
        return report

    def rewind(self, step: int) -> Any:
        """Go back to just before an earlier step; return the record of what had happened.

        Requests, line, cache and sampler are as they were then, and the same objects; the tables
        go on from there. Requests that had not been added yet are aborted, those that had finished
        too, and their ids are given out again. In float32 or with
        ``batch_invariant=True`` the same steps give the same tokens again; first change a policy, a
        priority or a parameter (``engine.change``) and they show what it does.

        Raises:
            EngineIsRunning: the loop thread drives the engine; ``record.engine_at(step)`` gives an
                engine of its own.
            EngineError: the step is out of reach, or the policy would not act as it did.
        """
        self._require_open()
        if self._loop.is_running or self._loop.is_inside_step:
            raise EngineIsRunning(
                "the engine is running and cannot go back; record.engine_at(step) gives a separate "
                "engine, and engine.pause() holds this one"
            )
        with interrupts_held():
            return self._loop.call(lambda: rewind(self, step))

    def vanish(self, samples: Sequence[Request]) -> None:
        """Abort requests of a future that is gone; whoever streams hears of it.

        One that had finished is aborted too: what it answered never was, and its id is free again.
        """
        for sample in samples:
            was_finished = sample.is_finished
            sample.status, sample.finish_reason = Status.ABORTED, FinishReason.ABORT
            sample.is_taken_back = True
            if not was_finished:
                sink = self._sinks.get(samples[0].id)
                if sink is not None:
                    self._outbox.append((samples[0].id, sink, _piece(sample, 0, (), "")))
        self._send()
        for sample in samples:
            self.forget(sample)

    def use_clock(self, clock: Clock) -> None:
        """Read another clock from now on."""
        self.clock = self.intake.clock = self.cache.pool.clock = clock
        self.cache.pool.observer = BlockEvents(self.events, clock, lambda: self.step_number)

    def frozen_journal(self) -> Journal:
        """Return a copy of the journal, taken between two steps."""
        return self._loop.call(lambda: self.journal.frozen())

    def blank(self, runner: Runner, clock: Clock) -> Engine:
        """Return an engine of the same settings, with another runner and nothing in it.

        Raises:
            EngineError: this one was given a cache, and nobody knows how to make another like it.
        """
        if self._has_own_cache:
            raise EngineError(
                f"this engine was given a {type(self.cache).__name__}, and another like it cannot "
                "be made here: it cannot go back"
            )
        return Engine(
            runner,
            replace(self.config, policy=pristine(self.journal.base.policy)),
            text=self.intake.text,
            clock=clock,
            sampler=getattr(runner, "sampler", None),
            hooks=getattr(runner, "hooks", None),
            eos_token_ids=self.intake.eos_token_ids,
        )

    # ---- who drives

    @property
    def is_running(self) -> bool:
        """Whether the loop thread drives the engine now."""
        return self._loop.is_running

    @property
    def is_started(self) -> bool:
        """Whether the loop thread exists, paused or not."""
        return self._loop.is_started

    @property
    def is_paused(self) -> bool:
        """Whether ``pause()`` holds the thread, or would hold it if it were started."""
        return self._loop.is_paused

    @property
    def is_closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    @property
    def failure(self) -> BaseException | None:
        """Why no step can be computed any more: a process of the model is gone. None if none is."""
        failure: BaseException | None = getattr(self.runner, "failure", None)
        return failure

    def start(self) -> None:
        """Let a thread run the steps until ``stop()``."""
        self._require_open()
        self._is_kept = True
        self._loop.start()

    def stop(self) -> None:
        """End the thread after the step it is in; unfinished requests stay."""
        self._is_kept = False
        self._loop.stop()

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Let a thread run the steps for the block, and longer only if ``start()`` was called.

        Raises:
            EngineError: the engine is paused, so waiting for it would never end.
            EngineIsRunning: the caller is what the engine itself called.
        """
        self._require_open()
        self.refuse_to_wait()
        with self._drivers_lock:
            if self._loop.is_paused:
                raise EngineError(
                    "the engine is paused; leave `with engine.paused():` or call engine.resume()"
                )
            self._num_drivers += 1
            self._loop.start()
        try:
            yield
        finally:
            with self._drivers_lock:
                self._num_drivers -= 1
                if self._num_drivers == 0 and not self._is_kept:
                    self._loop.stop()

    def pause(self) -> None:
        """Hold the thread between two steps."""
        self._loop.pause()
        self.emit(events.EnginePaused)

    def refuse_to_wait(self) -> None:
        """Raise EngineIsRunning for what the engine itself called: it would wait for itself."""
        if self._loop.is_caller:
            raise EngineIsRunning(
                "this is called by the engine, from a hook, a sink, a processor, a policy or a "
                "listener: it cannot wait for the engine's next step; use engine.add() and "
                "engine.abort(), or act from another thread"
            )

    def resume(self) -> None:
        """Let a paused thread go on."""
        self._loop.resume()

    @contextmanager
    def paused(self) -> Iterator[Engine]:
        """Look or change in peace: the thread stands still for the length of the block.

        What other threads add or abort meanwhile still takes effect, between two calls of yours.
        """
        self.pause()
        try:
            yield self
        finally:
            self.resume()

    def on(self, kind: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        """Call ``listener`` with each event of a kind; return how to unsubscribe."""
        return self.events.on(kind, listener)

    def snapshot(self) -> EngineSnapshot:
        """Return a frozen view of all unfinished requests, taken between two steps."""
        return self._loop.call(self._snapshot)

    def block_snapshot(self) -> BlockSnapshot:
        """Return a frozen copy of every block's state, taken between two steps."""
        return self._loop.call(self._block_snapshot)

    def between_steps(self, action: Callable[[], T]) -> T:
        """Run ``action`` while no step runs, from any thread, and return what it returns.

        It may read the engine and use the model, but must not change either.
        """
        return self._loop.call(action)

    def set_policy(self, policy: Any) -> None:
        """Assign ``scheduler.policy`` between two steps, from any thread, while the loop runs."""
        resolved = resolve_policy(policy)
        self._change(lambda: setattr(self.scheduler, "policy", resolved), None)

    def reset_prefix_cache(self) -> int:
        """Forget reusable blocks; return how many were evicted."""
        return self._change(self._reset_prefix_cache, self.cache.pool.num_cached)

    def change(
        self,
        request_id: str | Request,
        *,
        priority: int | None = None,
        params: SamplingParams | None = None,
        tags: dict[str, Any] | None = None,
    ) -> None:
        """Change what an unfinished request asks for, and that of its samples, between two steps.

        ``dataclasses.replace(request.params, temperature=0.0)`` are params with one change. What is
        fixed when a request starts cannot change: n, seed, stop, the form of the output, and which
        log-probabilities and texts are made.

        Raises:
            InvalidRequest: nothing unfinished has this id, or such a parameter would change.
        """
        request_id = request_id.id if isinstance(request_id, Request) else request_id
        request = self._find(request_id)
        if request is None:
            raise InvalidRequest(f"no unfinished request has the id {request_id!r}")
        if params is not None:
            require_changeable(request, params)
        change = Changed(request_id, priority, params, None if tags is None else dict(tags))
        self._change(lambda: self._change_request(change), None)

    def close(self) -> None:
        """Abort what is unfinished, stop the thread and give the memory back; idempotent."""
        with self._drivers_lock:
            if self._closed:
                return
            self._closed = True  # from here on nobody is let in
        self._loop.stop()
        self._loop.post(self._clear)  # at once, or after the step from inside which we are called

    # ---- inside a step

    def _step(self, *, names_line: bool = False) -> StepReport:
        start_s = self.read_clock("start")
        self.step_number = self.scheduler.next_step
        self.emit(events.StepStarted)
        before = self._block_counts()
        evicted = self.cache.pool.num_evicted
        num_running, num_waiting = self.scheduler.num_running, self.scheduler.num_waiting
        plan = self.scheduler.schedule(start_s)
        decision = self.scheduler.last_decision
        scheduled_s = self.read_clock("scheduled")
        self._is_lost = False
        result = self._run(plan)
        ran_s = self.read_clock("ran")
        progress = self.scheduler.update(plan, result, ran_s)
        end_s = self.read_clock("end")
        updates, ended = self._deliver(progress, result.tokens)
        sent_s = self.read_clock("sent")
        self.scheduler.settle(plan, progress, end_s=end_s, sent_s=sent_s)
        self.journal.stepped(
            plan,
            result,
            StepClock(start_s, scheduled_s, ran_s, end_s, sent_s),
            refused=decision.refused,
            is_lost=self._is_lost,
        )
        num_waiting += len(plan.preempted_ids) - len(plan.admitted_ids)
        in_line: tuple[str, ...] = ()
        if names_line and num_waiting > len(decision.refused):
            line = self.scheduler.first_waiting(MOST_NAMED + len(decision.refused))
            in_line = tuple([request.id for request in line])
        report = StepReport(
            plan=plan,
            result=result,
            updates=updates,
            waiting=tuple(decision.refused),
            num_running=num_running + len(plan.admitted_ids) - len(plan.preempted_ids),
            num_waiting=num_waiting,
            num_cached_tokens=decision.num_cached_tokens,
            num_recomputed_tokens=decision.num_recomputed_tokens,
            num_evicted=self.cache.pool.num_evicted - evicted,
            blocks_before=before,
            blocks_after=self._block_counts(),
            policy=self.scheduler.policy.name,
            start_s=start_s,
            end_s=end_s,
            sent_s=sent_s,
            schedule_s=scheduled_s - start_s,
            update_s=end_s - ran_s,
            stalled=tuple(decision.stalled),
            preempted=tuple((victim.id, other.id) for victim, other in decision.preempted),
            beam_moves=tuple(decision.beam_moves),
            in_line=in_line,
        )
        # Not in the report, which tables keep: a traceback holds on to whatever its frames held.
        ends = [(request.id, str(request.finish_reason), request.error) for request in ended]
        emit_step_events(self.events, report, decision, sampled_s=ran_s, ends=ends)
        self._send()
        if self.config.check_every_step:
            self.scheduler.check()
        return report

    def _run(self, plan: StepPlan) -> StepResult:
        """Run the plan; if the runner itself fails, every request of the step fails with it.

        An ``exit()`` in somebody's code is such a failure too: cutting the step in half would leave
        blocks that are named for what was never computed.
        """
        if plan.is_empty:  # nobody can start: only grammars could still be missing
            self.scheduler.wait_for_preparation(self.preparation_wait_s)
            return StepResult(tokens={})
        try:
            return self.runner.run(plan)
        except BaseException as error:
            logger.exception("step %d failed; its %d requests end", plan.step, len(plan.chunks))
            self.scheduler.abandon()
            self._is_lost = True
            return StepResult(tokens={}, errors={c.request_id: error for c in plan.chunks})

    def _deliver(
        self, progress: list[Progress], sampled: Mapping[str, tuple[SampledToken, ...]]
    ) -> tuple[tuple[RequestUpdate, ...], list[Request]]:
        """Take the text of new tokens, lay pieces out for the streams, forget who ended.

        Return what was added to each request, and those that ended.
        """
        updates, ended = [], []
        sinks = self._sinks
        for request, num_new in progress:
            name, tokens = request.id, request.token_ids
            first_index = len(tokens) - len(request.prompt_token_ids) - num_new
            has_ended = request.finish_reason is not None
            if num_new == 1 and not has_ended and request.text is None and request.beam is None:
                row = (name, first_index, (tokens[-1],), "", None, sampled[name])
                updates.append(_new_update(row))
                if sinks:
                    self._lay_out(request, first_index, row[2], "")
                continue
            if not num_new and not has_ended:
                continue
            own = sampled.get(name, ())
            token_ids = tuple(tokens[len(tokens) - num_new :])
            text = ""
            if request.text is not None:
                text = self._take_text(request)  # which ends the request if it raises
                has_ended = request.finish_reason is not None
            if request.beam is not None:  # the runner's answer was a beam's candidates
                own = tuple(map(SampledToken, token_ids))
            reason = None
            if has_ended:
                reason = str(request.finish_reason)
                ended.append(request)
            update = (name, first_index, token_ids, text, reason, own[:num_new])
            updates.append(_new_update(update))
            if sinks:
                self._lay_out(request, first_index, token_ids, text)
        # Afterwards: two samples of one request may end in the same step, and both are to be heard.
        for request in ended:
            self.forget(request)
        return tuple(updates), ended

    def _lay_out(
        self, request: Request, first_index: int, token_ids: tuple[int, ...], text: str
    ) -> None:
        """Lay a piece out for whoever streams the request."""
        leader_id = request.parent_id or request.id
        sink = self._sinks.get(leader_id)
        if sink is not None:
            piece = _piece(request, first_index, token_ids, text)
            self._outbox.append((leader_id, sink, piece))

    def _take_text(self, request: Request) -> str:
        """Return what became certain of a request's text; one whose text raises fails alone."""
        if request.text is None:
            return ""
        try:
            return request.text.take()
        except BaseException as error:
            if request.finish_reason is None:
                request.error = error
                self.scheduler.end(request, Status.FAILED, FinishReason.ERROR, self.clock.now())
            return ""

    def _send(self) -> None:
        """Give the pieces to whoever streams; a sink that raises gets no more.

        Last in a step: whoever has an answer finds it in the tables.
        """
        outbox, self._outbox = self._outbox, []
        broken = set()
        for leader_id, sink, piece in outbox:
            if leader_id in broken:
                continue
            try:
                sink(piece)
            except BaseException:
                logger.warning("%s is aborted because its stream raised:", leader_id, exc_info=True)
                broken.add(leader_id)
                self._sinks.pop(leader_id, None)
                self.abort(leader_id, by="stream")

    def forget(self, request: Request) -> None:
        """Let go of a request that has ended."""
        self.runner.release(request.id)
        if all(sample.is_finished for sample in request.samples):
            leader_id = request.parent_id or request.id
            self._sinks.pop(leader_id, None)
            self.leaders.pop(leader_id, None)

    def _guarded_step(self) -> None:
        """Run a step on the loop's thread: whatever goes wrong, no request is left waiting."""
        try:
            self._step()
        except BaseException as error:
            logger.exception("the engine failed in step %d; all requests end", self.step_number)
            self.scheduler.break_off(self.clock.now())
            for request in self.scheduler.unfinished:
                self.end_early(request, Status.FAILED, FinishReason.ERROR, error)
            self._send()  # what the step laid out for those that had ended
            self._reset_prefix_cache()

    # ---- requests, inside

    def enqueue(self, samples: tuple[Request, ...]) -> None:
        """Put checked requests in line; between two steps only."""
        if self.journal.is_long and not self.scheduler.has_work:
            self.begin_journal(base_of(self))
        now_s = self.clock.now()
        self.journal.added(samples, now_s)
        self.leaders[samples[0].id] = samples[0]
        for sample in samples:
            self.scheduler.add(sample, now_s)
        for sample in samples:
            self.emit(events.RequestAdded, request_id=sample.id, request=sample)
        if self._closed:  # accepted before the engine was closed, and arrived after
            self._abort(samples[0].id, "close")

    def _find(self, request_id: str) -> Request | None:
        """Return a request that is unfinished, or of which a sample is."""
        return self.leaders.get(request_id) or self.scheduler.get(request_id)

    def _abort(self, request_id: str, by: str) -> bool:
        request = self._find(request_id)
        if request is None:
            return False
        is_one_of_many = request.parent_id is not None and request.beam is None
        for sample in (request,) if is_one_of_many else request.samples:
            if not sample.is_finished:
                self.end_early(sample, Status.ABORTED, FinishReason.ABORT, None, by)
        return True

    def end_early(
        self,
        request: Request,
        status: Status,
        reason: FinishReason,
        error: BaseException | None,
        by: str = "",
    ) -> None:
        """End a request that has not come to its own end; between two steps only."""
        now_s = self.clock.now()
        self.journal.note(Ended(request.id, now_s, status, reason, error, by))
        request.error = error
        self.scheduler.end(request, status, reason, now_s)
        self._deliver([Progress(request, 0)], {})
        if error is None:
            self.emit(events.Aborted, request_id=request.id, by=by)
        else:
            self.emit(events.Failed, request_id=request.id, error=error)
        self._send()

    # ---- small things

    def _change(self, action: Callable[[], T], foreseen: T) -> T:
        """Change the engine's state between two steps; from inside one, afterwards.

        ``foreseen`` is what is returned then, in place of the action's own answer.
        """
        if self._loop.is_inside_step:
            self._loop.post(action)
            return foreseen

        def whole() -> T:
            with interrupts_held():
                return action()

        return self._loop.call(whole)

    def _change_request(self, change: Changed) -> None:
        request = self._find(change.request_id)
        if request is None:
            return
        self.journal.note(change)
        for sample in request.samples if request.parent_id is None else (request,):
            if not sample.is_finished:
                _, priority, params, tags = change
                self.scheduler.change(sample, priority=priority, params=params, tags=tags)

    def _reset_prefix_cache(self) -> int:
        self.journal.note(Reset())
        return self.cache.reset()

    def _clear(self) -> None:
        for request in self.scheduler.unfinished:
            self._abort(request.id, "close")
        self._sinks.clear()
        self.runner.close()

    def begin_journal(self, base: Base) -> None:
        """Write a new journal, of which ``base`` is the beginning: nothing is unfinished."""
        self.journal = self.journal.starting_at(base)
        self._show_journal()

    def _show_journal(self) -> None:
        if hasattr(self.record, "journal"):
            self.record.journal = None if isinstance(self.journal, NoJournal) else self.journal

    def _on_policy_chosen(self, policy: Policy) -> None:
        self.journal.note(PolicyChosen(pristine(policy)))

    def _on_policy_changed(self, old: str, new: str) -> None:
        self.emit(events.PolicyChanged, old=old, new=new)

    def emit(self, kind: type[events.Event], **fields: Any) -> None:
        """Tell whoever listens of an event that happens now."""
        if self.events.wants(kind):
            with interrupts_held():
                self.events.emit(kind(step=self.step_number, time_s=self.clock.now(), **fields))

    def _block_counts(self) -> BlockCounts:
        pool = self.cache.pool
        num_free, num_cached = pool.num_free, pool.num_cached
        return BlockCounts(pool.num_blocks - num_free, num_cached, num_free - num_cached)

    def _snapshot(self) -> EngineSnapshot:
        def view(request: Request) -> RequestSnapshot:
            return RequestSnapshot.of(request, self.cache.table(request.id))

        return EngineSnapshot(
            step=self.step_number,
            time_s=self.clock.now(),
            policy=self.scheduler.policy.name,
            running=tuple(map(view, self.scheduler.running)),
            waiting=tuple(map(view, self.scheduler.waiting)),
            blocks=self._block_counts(),
        )

    def _block_snapshot(self) -> BlockSnapshot:
        computed = {r.id: r.num_computed_tokens for r in self.scheduler.unfinished}
        return self.cache.snapshot(computed, step=self.step_number, time_s=self.clock.now())

    def _require_open(self) -> None:
        if self._closed:
            raise EngineClosed("this engine was closed; build a new one")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self.is_running else "idle"
        return (
            f"Engine({state}, step {self.step_number}: {self.scheduler.num_running} running, "
            f"{self.scheduler.num_waiting} waiting, {self.cache!r})"
        )


def _piece(
    request: Request, first_index: int, token_ids: tuple[int, ...], text: str
) -> OutputPiece:
    return OutputPiece(
        request_id=request.parent_id or request.id,
        index=request.sample_index,
        text=text,
        token_ids=token_ids,
        logprobs=request.logprobs[first_index:] if request.logprobs is not None else None,
        finish_reason=str(request.finish_reason) if request.finish_reason else None,
        stop_reason=request.stop_reason,
        error=request.error,
    )
