"""Decide which tokens run next; knows counts, never tensors.

Request path 3/8: from engine.engine, to cache.blocks.

There is no prefill phase and no decode phase. Each request has ``num_computed_tokens`` that chases
``num_tokens``; a step gives it some of the missing tokens, as the budget and the blocks allow:
first those that run, then those that wait. When blocks run out, the request that ranks last gives
up its own and starts over later. The request that ranks first is never a victim, unless a policy
chooses it for its own sake, and always fits alone; a victim comes back only when all its tokens
fit. So every request ends. Of a beam search that holds for the beams that have something to
compute: one that only waits for its siblings gives way to whoever could not go on without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from toolkit.cache.blocks import BlockCopy, Extension, PagedCache, PrefixMatch
from toolkit.config import SchedulerConfig
from toolkit.engine.beam_groups import BeamGroup, BeamGroups, BeamMove
from toolkit.engine.foresight import foreseen_chunks, look_ahead
from toolkit.engine.plan import SampledToken, ScheduledChunk, StepPlan, StepResult
from toolkit.engine.policies import resolve_policy
from toolkit.engine.policy import NOBODY, Policy, ReadOnly, ReadOnlyList, SchedulerView
from toolkit.engine.prompt_scores import append_prompt_scores
from toolkit.engine.queue import Entry, WaitingQueue
from toolkit.engine.stopping import append_token, sure_length
from toolkit.engine.waits import Ledger
from toolkit.errors import EngineError, InvariantViolation
from toolkit.interrupts import interrupts_held
from toolkit.request import FinishReason, Request, SamplingParams, Status

__all__ = ["Decision", "Progress", "Scheduler"]


@dataclass(slots=True)
class Decision:
    """A step's plan while it is made, and why it came out so."""

    budget: int
    chunks: list[ScheduledChunk] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)
    preempted: list[tuple[Request, Request]] = field(default_factory=list)  # victim, for whom
    admitted: list[Request] = field(default_factory=list)
    caught_up: list[Request] = field(default_factory=list)  # running, but with blocks of others
    refused: list[tuple[str, str]] = field(default_factory=list)  # request id, cause
    skipped: set[str] = field(default_factory=set)  # running, but no token by rule
    stalled: list[tuple[str, str]] = field(default_factory=list)  # running, no token yet, no chunk
    limited_by: str = "none"
    is_closed: bool = False  # the policy lets nobody else start
    prefix_hits: list[tuple[str, int]] = field(default_factory=list)  # request id, tokens
    num_recomputed_tokens: int = 0
    beam_moves: list[BeamMove] = field(default_factory=list)  # what its results led to

    @property
    def num_cached_tokens(self) -> int:
        """Tokens that this step found in the cache."""
        return sum(num_tokens for _, num_tokens in self.prefix_hits)


class Progress(NamedTuple):
    """What ``update`` did to one request: so many tokens more, at the end of its output."""

    request: Request
    num_new_tokens: int


# Made once per token: calling the class takes three times as long.
_new_chunk = partial(tuple.__new__, ScheduledChunk)


class Scheduler:
    """The requests that wait and run, and the choice of what to compute next."""

    def __init__(
        self,
        config: SchedulerConfig,
        cache: PagedCache,
        policy: Any = "fcfs",
        *,
        policy_chosen: Callable[[Policy], object] | None = None,
        policy_changed: Callable[[str, str], object] | None = None,
    ) -> None:
        self.config = config
        self.cache = cache
        # Another kind of cache need not have it: then it is asked about every token.
        self._writable: Mapping[str, int] = getattr(cache, "writable", {})
        self._policy = resolve_policy(policy)
        self.policy_chosen = policy_chosen  # told before a policy is first asked
        self.policy_changed = policy_changed
        self._queue = WaitingQueue()
        self._running: list[Request] = []
        self._seen_running = ReadOnlyList(self._running)  # by policies
        self._seen_waiting = ReadOnly(self._queue)
        self._ranks: dict[str, Any] = {}  # of running requests, when the policy is static
        self._requests: dict[str, Request] = {}
        self._one_token: dict[str, Progress] = {}  # what nearly every step does to each of them
        self._ledger = Ledger()
        self._beams = BeamGroups()
        self._step = 0
        self._now_s = 0.0
        self._is_planning = False
        self.last_decision = Decision(0)

    # ---- what a reader sees

    @property
    def waiting(self) -> tuple[Request, ...]:
        """Requests that wait, in the order they would start; then beams that wait for siblings."""
        return (*self._queue, *self._beams.parked.values())

    def first_waiting(self, count: int) -> tuple[Request, ...]:
        """Return that many of ``waiting``; what it costs does not depend on the line's length."""
        return (*self._queue.first(count), *islice(self._beams.parked.values(), count))[:count]

    @property
    def running(self) -> tuple[Request, ...]:
        """Requests that hold blocks."""
        return tuple(self._running)

    @property
    def num_waiting(self) -> int:
        """Length of the line."""
        return len(self._queue) + len(self._beams.parked)

    @property
    def num_running(self) -> int:
        """Requests that hold blocks."""
        return len(self._running)

    @property
    def unfinished(self) -> tuple[Request, ...]:
        """Everybody, running or waiting, in the order of arrival."""
        return tuple(self._requests.values())

    @property
    def next_step(self) -> int:
        """The number of the step to come, from 0."""
        return self._step

    @property
    def has_work(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._requests)

    @property
    def policy(self) -> Policy:
        """The policy in force; assign a name, a function or an object between steps."""
        return self._policy

    @policy.setter
    def policy(self, policy: Any) -> None:
        if self._is_planning:
            raise EngineError(
                "the policy cannot change in the middle of a step's plan; "
                "engine.set_policy(...) changes it when the step is over"
            )
        new = resolve_policy(policy)
        if self.policy_chosen is not None:
            self.policy_chosen(new)
        old, self._policy = self._policy, new
        self._rerank()
        if self.policy_changed is not None:
            self.policy_changed(old.name, new.name)

    def get(self, request_id: str) -> Request | None:
        """Return an unfinished request by id."""
        return self._requests.get(request_id)

    # ---- what changes the line

    def add(self, request: Request, now_s: float) -> None:
        """Put a new request in line."""
        request.queued_s = now_s
        self._note_params(request)
        self._requests[request.id] = request
        self._one_token[request.id] = Progress(request, 1)
        if not self._beams.parks(request):
            self._queue.push(request, self._policy, self._view(now_s))
        self._ledger.join(request)

    def end(self, request: Request, status: Status, reason: FinishReason, now_s: float) -> None:
        """End a request at any moment: its blocks are free when this returns."""
        if request.status is Status.RUNNING:
            self._running[:] = [other for other in self._running if other is not request]
            self._ranks.pop(request.id, None)
        else:
            self._queue.remove(request)
        if request.text is not None:
            try:
                request.text.finish()  # what was held back for a stop string is certain now
            except BaseException as error:
                if status is Status.FINISHED:  # else it ends early anyway, with the text so far
                    request.error, status, reason = error, Status.FAILED, FinishReason.ERROR
        request.status, request.finish_reason, request.finished_s = status, reason, now_s
        self._ledger.end(request, now_s)
        self.cache.close(request)  # after the status, which tells the tables why
        self._beams.leave(request)
        del self._requests[request.id], self._one_token[request.id]

    def change(
        self,
        request: Request,
        *,
        priority: int | None = None,
        params: SamplingParams | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Change what an unfinished request asks for; everybody is ranked anew."""
        if priority is not None:
            request.priority = priority
        if tags is not None:
            request.tags = dict(tags)
        if params is not None:
            room = self.config.max_model_len - request.num_prompt_tokens
            request.params = params
            request.max_tokens = min(params.max_tokens or room, room)
            self._note_params(request)
        self._rerank()

    def _note_params(self, request: Request) -> None:
        request.sure_length = sure_length(request, self.config.max_model_len)
        request.is_foreseeable = self.config.asynchronous and request.samples_blind

    def start_at(self, step: int) -> None:
        """Let the first step have this number."""
        self._step = step

    # ---- the step

    def schedule(self, now_s: float) -> StepPlan:
        """Choose what to compute next; an empty plan means there is nothing to do."""
        self._now_s = now_s
        view = self._view(now_s)
        draft = Decision(self.config.max_num_batched_tokens)
        self._ledger.begin_step(now_s)
        for group in self._beams.decided:
            self._carry_out(group, draft, view)
        self._is_planning = True
        try:
            self._fill(draft, view, now_s)
        finally:
            self._is_planning = False
        draft.refused += [(request_id, "sibling") for request_id in self._beams.parked]
        foreseen = self._foresee(draft) if self.config.asynchronous else ()
        self.last_decision = draft
        plan = StepPlan(
            step=self._step,
            chunks=tuple(draft.chunks),
            copies=tuple(draft.copies),
            preempted_ids=tuple(victim.id for victim, _ in draft.preempted),
            admitted_ids=tuple(request.id for request in draft.admitted),
            num_tokens=self.config.max_num_batched_tokens - draft.budget,
            token_budget=self.config.max_num_batched_tokens,
            limited_by=draft.limited_by,
            foreseen=foreseen,
        )
        self._step += 1
        return plan

    def _fill(self, draft: Decision, view: SchedulerView, now_s: float) -> None:
        """Spend the budget: first on those that run, then on those that wait."""
        if not self._policy.static:
            self._queue.refresh(self._policy, view)
            self._sort_running(view)
        self._continue_running(draft, view)
        if draft.preempted:  # whoever lost its blocks must not be overtaken by a newcomer
            draft.limited_by = "blocks"
        else:
            self._admit_waiting(draft, view, now_s)
        if not draft.chunks and not self._beams.are_idle(self._running):
            self._insist(draft, view)

    def _foresee(self, draft: Decision) -> tuple[ScheduledChunk, ...]:
        """Say what the next step will most likely compute, and take the blocks that it needs."""
        if len(draft.chunks) < len(self._running) or (self._policy.has_chunk and len(self._queue)):
            return ()  # who gets what in the next step is not clear
        following = foreseen_chunks(
            draft.chunks,
            self._requests,
            budget=self.config.max_num_batched_tokens,
            max_model_len=self.config.max_model_len,
        )
        return look_ahead(draft.chunks, following, self._requests, self.cache)

    def update(self, plan: StepPlan, result: StepResult, now_s: float) -> list[Progress]:
        """Take in what a step computed: count, append, finish."""
        progress: list[Progress] = []
        requests, one_token, tokens = self._requests, self._one_token, result.tokens
        is_plain = not result.errors and not result.prompt_scores
        for chunk in plan.chunks:
            request = requests.get(chunk[0])
            if request is None:  # aborted while the step ran
                continue
            token_ids = request.token_ids
            request.num_computed_tokens = chunk[2]
            request.num_steps += 1
            if chunk[6] and len(token_ids) + 1 < request.sure_length and is_plain:
                own = tokens.get(chunk[0], ())
                if len(own) == 1 and request.hooked is None:  # nothing but a token more
                    token_ids.append(own[0][0])
                    progress.append(one_token[chunk[0]])
                    continue
            num_new = 0
            if request.hooked is not None:
                request.num_shown_tokens = max(request.num_shown_tokens, chunk.end)
            if request.id in result.prompt_scores:
                append_prompt_scores(request, result.prompt_scores[request.id])
            if request.beam is not None:
                progress += self._update_beam(request, chunk, result, now_s)
                continue
            if result.errors and request.id in result.errors:
                request.error = result.errors[request.id]
                self.end(request, Status.FAILED, FinishReason.ERROR, now_s)
            elif request.pooling is not None:
                self._update_pooling(request, chunk, result, now_s)
            elif chunk.samples:
                num_new = self._append(request, tokens.get(request.id, ()), now_s)
            progress.append(Progress(request, num_new))
        return progress

    def settle(
        self, plan: StepPlan, progress: Sequence[Progress], *, end_s: float, sent_s: float
    ) -> None:
        """Charge a step to its requests, and say when their new tokens were sent."""
        draft = self.last_decision
        self._ledger.end_step(
            plan.chunks,
            end_s,
            limited_by=draft.limited_by,
            refused=draft.refused,
            skipped=draft.skipped,
            stalled=draft.stalled,
        )
        for request, num_new in progress:
            if num_new:
                request.last_token_s = sent_s
                if request.first_token_s is None:
                    request.first_token_s, request.emit_s = sent_s, sent_s - end_s
                    self._ledger.leave(request, end_s)
            if request.finish_reason is not None:
                request.finished_s = sent_s if num_new else end_s

    def abandon(self) -> None:
        """Forget what a step that was lost should have computed.

        The blocks it was to fill are named already, so every name goes: a later prompt must not
        find content that was never computed.
        """
        self.cache.reset()

    def break_off(self, now_s: float) -> None:
        """Close the accounts of a step that raised."""
        self._ledger.break_off(now_s)

    def wait_for_preparation(self, timeout_s: float) -> None:
        """Let the thread sleep until one of those that wait could start; return after a time-out.

        Others may have been added meanwhile, which only the next step would see.
        """
        pending = [r.preparation for r in self._queue if r.preparation is not None]
        if pending:
            wait(pending, timeout=timeout_s, return_when=FIRST_COMPLETED)

    def check(self) -> None:
        """Raise InvariantViolation unless line, running set, beams and cache agree."""
        self.cache.check()
        self._beams.check()
        running = {request.id for request in self._running}
        waiting = {request.id for request in self.waiting}
        if running & waiting or running | waiting != set(self._requests):
            raise InvariantViolation("a request is not in exactly one of waiting and running")
        if set(self.cache.tables) != running:
            raise InvariantViolation("blocks are held by a request that does not run")
        if len(running) > self.config.max_num_seqs:
            raise InvariantViolation(f"{len(running)} requests run, more than max_num_seqs")
        for request in self._running:
            has_all = request.num_computed_tokens >= request.num_tokens
            if has_all and not self._beams.is_idle(request):
                raise InvariantViolation(f"{request} runs but has nothing to compute")
            if request.num_computed_tokens > self.cache.num_held(request) * self.cache.block_size:
                raise InvariantViolation(f"{request} has computed more than its blocks hold")

    def __repr__(self) -> str:
        return (
            f"Scheduler(policy={self._policy.name!r}, {self.num_running} running, "
            f"{self.num_waiting} waiting, step {self._step} is next)"
        )

    # ---- running requests first

    def _continue_running(
        self, draft: Decision, view: SchedulerView, *, ask_policy: bool = True
    ) -> None:
        asks_policy = self._policy.has_chunk and ask_policy
        writable, chunks = self._writable, draft.chunks
        is_quick = not asks_policy and not self._beams.moved
        for request in tuple(self._running):
            if draft.budget == 0:
                draft.limited_by = "budget"
                return
            start = request.num_computed_tokens
            tokens = request.token_ids
            if (
                is_quick
                and start + 1 == len(tokens)
                and start < writable.get(request.id, 0)
                and start >= request.num_lost_tokens
                and request.pooling is None
            ):  # its newest token, into a block that it has: what nearly all requests want
                draft.budget -= 1
                chunk = (request.id, start, start + 1, (tokens[start],), (), False, True)
                chunks.append(_new_chunk(chunk))
                continue
            is_preempted = request.status is not Status.RUNNING  # by one before it
            if is_preempted or start == len(tokens):  # or an idle beam
                draft.skipped.add(request.id)
                continue
            want = min(len(tokens) - start, draft.budget)
            if asks_policy:
                want = self._policy.chunk(request, want, draft.budget, view)
                if want == 0:
                    draft.skipped.add(request.id)
                    continue
            table: tuple[int, ...] = ()
            was_moved = request.id in self._beams.moved
            if was_moved:
                table = tuple(self.cache.table(request.id))
            elif len(request.token_ids) - start > 1:
                table = self._catch_up(request, draft)
                start = request.num_computed_tokens
                want = min(want, len(request.token_ids) - start)
            end = start + want
            # A beam that could keep no block has an empty table, which replaces the old one too.
            is_first = was_moved or bool(table)
            extension = self.cache.extend(request, start, end)
            if extension is None:
                end, extension = self._make_room(request, start, end, draft, view)
            if extension is not None:  # else it had to preempt itself
                self._plan_chunk(request, start, end, table, extension, draft, is_first=is_first)
                self._beams.moved.discard(request.id)

    def _catch_up(self, request: Request, draft: Decision) -> tuple[int, ...]:
        """Let a request go on behind blocks that others computed meanwhile, or do in this step.

        Several requests with one prefix each get a part of it computed, where a policy gives none
        of them all of it: nobody waits for another, and nothing is computed twice. Return the new
        block table, empty when there is nothing to gain. Beams are left out: theirs change anyway.
        """
        match = self.cache.match_ahead(request)
        num_gained = match.num_tokens - request.num_computed_tokens
        if not match.block_ids or request.beam is not None:
            return ()
        request.num_computed_tokens = match.num_tokens
        if request.num_output_tokens == 0:  # else it computes again what it had before
            request.num_cached_tokens += num_gained
        draft.prefix_hits.append((request.id, num_gained))
        draft.caught_up.append(request)
        return self.cache.catch_up(request, match)

    def _insist(self, draft: Decision, view: SchedulerView) -> None:
        """Give those that run a token though the policy gave nobody one: the engine never idles.

        It is asked once more and told that nobody waits, because nobody who waits can start in this
        step: it may have kept the budget for them. Only then is it overruled.
        """
        self._continue_running(draft, replace(view, waiting=()))
        if not draft.chunks:
            self._policy.overrule("chunk", "gave nobody a token")
            self._continue_running(draft, view, ask_policy=False)

    def _make_room(
        self,
        request: Request,
        start: int,
        end: int,
        draft: Decision,
        view: SchedulerView,
    ) -> tuple[int, Extension | None]:
        """Say how far this request gets now, preempting others if it could not move at all."""
        while True:
            reach = min(end, self.cache.room(request, start))
            if reach > start:
                draft.limited_by = "blocks" if reach < end else draft.limited_by
                return reach, self.cache.extend(request, start, reach)
            # Only requests without a chunk in this plan can be victims: a planned one's blocks
            # are named already, and somebody may have matched them.
            behind = tuple(self._running[self._running.index(request) :])
            victim = self._policy.victim(behind, view)
            if victim is request:
                victim = self._idle_victim(request, draft) or request
            self._preempt(victim, request, draft, view)
            if victim is request:
                return start, None

    def _preempt(
        self, victim: Request, for_whom: Request, draft: Decision, view: SchedulerView
    ) -> None:
        self._running.remove(victim)
        self._ranks.pop(victim.id, None)
        victim.status = Status.PREEMPTED
        self.cache.close(victim)
        victim.num_lost_tokens = max(victim.num_lost_tokens, victim.num_computed_tokens)
        victim.num_computed_tokens = 0
        victim.num_preemptions += 1
        self._ledger.preempt(victim)
        if self._beams.is_idle(victim):
            self._beams.parked[victim.id] = victim
        else:
            self._queue.push(victim, self._policy, view)
        self._beams.moved.discard(victim.id)
        draft.preempted.append((victim, for_whom))

    # ---- then waiting ones

    def _admit_waiting(self, draft: Decision, view: SchedulerView, now_s: float) -> None:
        passed_over: list[Entry] = []
        while len(self._queue):
            if draft.budget == 0 or len(self._running) >= self.config.max_num_seqs:
                draft.limited_by = "budget" if draft.budget == 0 else "seqs"
                first = self._queue.peek()
                if first is not None and draft.budget and self._yields_to(first, draft, view):
                    continue
                if first is not None:
                    draft.refused.append((first.id, draft.limited_by))
                break
            entry = self._queue.pop()
            if entry is None:
                break
            request = entry[2]
            cause = self._stands_back_for(request, draft, view)
            if cause is not None:
                passed_over.append(entry)
                draft.refused.append((request.id, cause))
                if draft.is_closed:
                    break
            elif not self._admit(request, entry, draft, view, now_s):
                # Nobody overtakes: else a long prompt could wait for ever behind short ones.
                passed_over.append(entry)
                draft.refused.append((request.id, "blocks"))
                draft.limited_by = "blocks"
                break
        for entry in passed_over:
            self._queue.push_back(entry)
        others = any(cause != "grammar" for _, cause in draft.refused)
        if draft.limited_by == "none" and passed_over and others:
            draft.limited_by = "policy"

    def _stands_back_for(
        self, request: Request, draft: Decision, view: SchedulerView
    ) -> str | None:
        """Return why a request waits though there may be room: "grammar", "sibling" or "policy".

        A grammar is compiled on another thread. A sample whose sibling is computing their prompt
        waits for it, to share its blocks. With nothing running the policy is overruled, so that
        the engine never idles beside a queue.
        """
        if request.preparation is not None and not request.preparation.done():
            return "grammar"
        if len(request.samples) > 1 and request.num_output_tokens == 0:
            sibling_runs = any(other.status is Status.RUNNING for other in request.samples)
            if sibling_runs and self._fork_source(request, draft) is None:
                return "sibling"
        answer = self._policy.admits(request, view)
        if answer:
            return None
        if not self._beams.are_idle(self._running):
            draft.is_closed = answer is NOBODY
            return "policy"
        self._policy.overrule("admit", "let nobody start though nothing runs")
        return None

    def _fork_source(self, request: Request, draft: Decision) -> Request | None:
        """Return a sibling that has computed all but the last token of what this request needs.

        A further sample needs the prompt, a beam all of its tokens. Not one whose blocks came from
        others in this step, or are copied in it: blocks are copied before the step computes any,
        and all at once.
        """
        is_beam = request.beam is not None
        if len(request.samples) == 1 or (request.num_output_tokens and not is_beam):
            return None
        num_shared = request.num_tokens - 1
        needed = num_shared if is_beam else request.num_prompt_tokens
        unready = {sharer.id for sharer in (*draft.admitted, *draft.caught_up)}
        unready |= {copy.request_id for copy in draft.copies}
        for other in request.samples:
            is_running = other is not request and other.status is Status.RUNNING
            if not is_running or other.num_computed_tokens < needed or other.id in unready:
                continue
            if not is_beam or other.token_ids[:num_shared] == request.token_ids[:num_shared]:
                return other
        return None

    def _admit(
        self, request: Request, entry: Entry, draft: Decision, view: SchedulerView, now_s: float
    ) -> bool:
        # Everything but the last token, whose logits are needed.
        num_shared = request.num_tokens - 1
        match = PrefixMatch((), 0)
        while True:
            source = self._fork_source(request, draft) if num_shared else None
            if source is not None:
                # Its copy of the last block, and one to go on.
                fits = self.cache.num_free_blocks >= 2
            else:
                match = self.cache.match_prefix(request)
                fits = self.cache.can_hold(request, match)
            if fits:
                break
            if not self._yields_to(request, draft, view):
                return False
        if source is not None:
            start, table = num_shared, self.cache.fork(source, request, num_shared)
        else:
            start, table = match.num_tokens, self.cache.open(request, match)
        self._start_running(request, entry, start, draft, now_s)
        want = min(request.num_tokens - start, draft.budget)
        if self._policy.has_chunk:
            want = max(1, self._policy.chunk(request, want, draft.budget, view))
        extension = self.cache.extend(request, start, start + want)
        if extension is None:
            raise InvariantViolation(f"{request} was admitted without room for its first chunk")
        self._plan_chunk(request, start, start + want, table, extension, draft, is_first=True)
        return True

    def _start_running(
        self, request: Request, entry: Entry, num_cached: int, draft: Decision, now_s: float
    ) -> None:
        request.num_computed_tokens = num_cached
        if request.first_scheduled_s is None:
            request.first_scheduled_s = now_s
            request.num_cached_tokens = num_cached
        self._ledger.start(request)
        if num_cached:
            draft.prefix_hits.append((request.id, num_cached))
        draft.admitted.append(request)
        request.status = Status.RUNNING
        self._insert_running(request, entry)

    def _insert_running(self, request: Request, entry: Entry) -> None:
        """Keep the running set in rank order: served from the front, preempted from the back."""
        key = (entry[0], request.arrival_index)
        self._ranks[request.id] = key
        index = len(self._running)
        while index > 0 and self._ranks[self._running[index - 1].id] > key:
            index -= 1
        self._running.insert(index, request)

    # ---- beams

    def _carry_out(self, group: BeamGroup, draft: Decision, view: SchedulerView) -> None:
        """Let a group's beams follow their parents, as it has decided: each lacks a token now."""
        for request in self._beams.carry_out(group, self.cache):
            self._queue.push(request, self._policy, view)
        for beam in group.beams:  # what one lacks of these, its parent had computed
            if beam.status is Status.RUNNING:
                beam.num_lost_tokens = beam.num_tokens - 1

    def _update_beam(
        self, request: Request, chunk: ScheduledChunk, result: StepResult, now_s: float
    ) -> list[Progress]:
        """Collect a beam's candidates; end the group if it fails, or is done with the last ones.

        No token of a beam is certain before that, so its requests make progress only then.
        """
        group = self._beams.of(request)
        error = result.errors.get(request.id)
        try:
            if error is None and chunk.samples:
                group.collect(request, result.tokens.get(request.id, ()))
        except InvariantViolation as violation:
            error = violation
        if error is not None:
            for sample in group.samples:
                sample.error = error
                self.end(sample, Status.FAILED, FinishReason.ERROR, now_s)
            return [Progress(sample, 0) for sample in group.samples]
        if not group.is_complete:
            return []
        group.decide(self.cache)
        self.last_decision.beam_moves += group.moves
        if not group.search.is_done:
            return []
        for sample, reason in group.hand_out():
            self.end(sample, Status.FINISHED, reason, now_s)
        return [Progress(sample, sample.num_output_tokens) for sample in group.samples]

    def _yields_to(self, request: Request, draft: Decision, view: SchedulerView) -> bool:
        """Preempt an idle beam for a request that waits; return whether there was one."""
        victim = self._idle_victim(request, draft)
        if victim is not None:
            self._preempt(victim, request, draft, view)
        return victim is not None

    def _idle_victim(self, request: Request, draft: Decision) -> Request | None:
        """Return the idle beam that gives way to a request: a sibling of it, or any one if need be.

        An idle beam waits for those of its group that lack room, so it must give them its own. And
        if this step computes nothing yet, everybody may be waiting for what idle beams hold.
        """
        return self._beams.idle_victim(self._running, request, among_all=not draft.chunks)

    # ---- common to both

    def _plan_chunk(
        self,
        request: Request,
        start: int,
        end: int,
        table: tuple[int, ...],
        extension: Extension,
        draft: Decision,
        *,
        is_first: bool = False,
    ) -> None:
        if extension.copy is not None:
            draft.copies.append(extension.copy)
        new = table + extension.new_block_ids
        if new:
            request.peak_blocks = max(request.peak_blocks, self.cache.num_held(request))
        tokens = request.token_ids
        samples = end == len(tokens) and request.pooling is None
        draft.budget -= end - start
        if start < request.num_lost_tokens:
            num_again = min(end, request.num_lost_tokens) - start
            request.num_recomputed_tokens += num_again
            draft.num_recomputed_tokens += num_again
        chunk = (request.id, start, end, tuple(tokens[start:end]), new, is_first, samples)
        draft.chunks.append(ScheduledChunk._make(chunk))

    def _append(self, request: Request, tokens: tuple[SampledToken, ...], now_s: float) -> int:
        """Append a request's sampled tokens until one ends it; return how many.

        A token that the request's detokenizer raises on is the last one: the request fails alone.
        """
        if not tokens:
            request.error = InvariantViolation(f"the runner returned no token for {request.id}")
            self.end(request, Status.FAILED, FinishReason.ERROR, now_s)
            return 0
        num_new = 0
        for sampled in tokens:
            num_new += 1
            try:
                reason = append_token(request, sampled, self.config.max_model_len)
            except BaseException as error:
                request.error = error
                self.end(request, Status.FAILED, FinishReason.ERROR, now_s)
                break
            if reason is not None:
                self.end(request, Status.FINISHED, reason, now_s)
                break
        return num_new

    def _update_pooling(
        self, request: Request, chunk: ScheduledChunk, result: StepResult, now_s: float
    ) -> None:
        """End a request that pools once its last token is computed."""
        request.num_pooled_tokens = max(request.num_pooled_tokens, chunk.end)
        if chunk.end < request.num_tokens:
            return
        request.embedding = result.embeddings.get(request.id)
        if request.embedding is None:
            request.error = InvariantViolation(f"the runner returned no vector for {request.id}")
            self.end(request, Status.FAILED, FinishReason.ERROR, now_s)
        else:
            self.end(request, Status.FINISHED, FinishReason.STOP, now_s)

    def _rerank(self) -> None:
        self._ranks.clear()
        view = self._view(self._now_s)
        with interrupts_held():
            self._queue.rerank(self._policy, view)
            if self._policy.static:
                self._sort_running(view)

    def _sort_running(self, view: SchedulerView) -> None:
        self._ranks = {
            request.id: (self._policy.rank(request, view), request.arrival_index)
            for request in self._running
        }
        self._running.sort(key=lambda request: self._ranks[request.id])

    def _view(self, now_s: float) -> SchedulerView:
        return SchedulerView(
            now_s=now_s,
            token_budget=self.config.max_num_batched_tokens,
            running=self._seen_running,
            waiting=self._seen_waiting,
            num_free_blocks=self.cache.num_free_blocks,
            cached_tokens=self._num_cached_tokens,
            last_step=self._step - 1,
        )

    def _num_cached_tokens(self, request: Request) -> int:
        return self.cache.match_prefix(request).num_tokens
