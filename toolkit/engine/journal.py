"""Journal: what went into an engine and what its runner answered, enough to derive every step anew.

Scheduler and block pool are functions of their inputs: requests, aborts, changes, times, and the
runner's results. So the engine writes down only these, in order, and `toolkit.engine.past` plays
them again; no state is ever copied. What is kept is bounded: beyond ``MAX_TOKENS`` or
``MAX_STEPS`` the older part is dropped at a moment when nothing is unfinished, and the journal
begins there, with the contents of the prefix cache.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from toolkit.cache.blocks import PoolState
from toolkit.engine.plan import PromptScores, SampledToken, StepPlan, StepResult, StepTimes
from toolkit.engine.policies import resolve_policy
from toolkit.engine.policy import Policy
from toolkit.errors import EngineError
from toolkit.request import FinishReason, Request, SamplingParams, Status

__all__ = [
    "Added",
    "Base",
    "CachedBlock",
    "Changed",
    "Ended",
    "Entry",
    "Journal",
    "PolicyChosen",
    "Reset",
    "StepClock",
    "Stepped",
]

# A token takes some 50 bytes with its share of a step, a request a few kilobytes: 50 MB or so.
MAX_TOKENS = 500_000
MAX_STEPS = 200_000

_PLAIN = SampledToken(0)[1:]


class Added(NamedTuple):
    """A request and its samples joined the line; the values are those that may change later."""

    samples: tuple[Request, ...]
    queued_s: float
    priority: int
    tags: dict[str, Any]
    params: tuple[SamplingParams, ...]  # each sample's
    max_tokens: int


class Changed(NamedTuple):
    """Somebody changed a sample; None leaves a value as it was."""

    request_id: str
    priority: int | None
    params: SamplingParams | None
    tags: dict[str, Any] | None


class Ended(NamedTuple):
    """A sample was ended between two steps: aborted, or failed with the engine."""

    request_id: str
    time_s: float
    status: Status
    reason: FinishReason
    error: BaseException | None
    by: str


class PolicyChosen(NamedTuple):
    """A policy was assigned; ``policy`` was never asked."""

    policy: Policy


class Reset(NamedTuple):
    """The prefix cache was emptied."""


class StepClock(NamedTuple):
    """When a step began, was planned, had its results and ended."""

    start_s: float
    scheduled_s: float
    ran_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step: which chunks it computed, as a check, and what the runner answered.

    Tokens that are nothing but an id stand in an array, since an object for each would be one more
    for every full garbage collection to visit.
    """

    step: int
    clock: StepClock
    chunk_ids: tuple[str, ...]
    ends: array[int]
    sampled_ids: tuple[str, ...]
    token_ids: array[int]
    others: Mapping[str, tuple[SampledToken, ...]]  # with logprobs, facts, or not just one
    errors: Mapping[str, BaseException]
    prompt_scores: Mapping[str, PromptScores]
    embeddings: Mapping[str, bytes]
    times: StepTimes
    slow_path: str
    unready_ids: frozenset[str]  # whose grammar was still being compiled
    is_lost: bool  # the runner raised, so nothing was computed

    @property
    def result(self) -> StepResult:
        """What the runner answered."""
        tokens: dict[str, tuple[SampledToken, ...]] = {
            name: (SampledToken(token_id),)
            for name, token_id in zip(self.sampled_ids, self.token_ids, strict=True)
        }
        tokens.update(self.others)
        return StepResult(
            tokens=tokens,
            errors=self.errors,
            prompt_scores=self.prompt_scores,
            embeddings=self.embeddings,
            times=self.times,
            slow_path=self.slow_path,
        )

    def is_like(self, plan: StepPlan) -> bool:
        """Whether a plan computes the same chunks, in the same order."""
        return self.step == plan.step and [(c.request_id, c.end) for c in plan.chunks] == list(
            zip(self.chunk_ids, self.ends, strict=True)
        )


Entry: TypeAlias = Added | Changed | Ended | PolicyChosen | Reset | Stepped


class CachedBlock(NamedTuple):
    """A block that held something when the journal began, and all tokens up to its end."""

    block_id: int
    name: bytes
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Base:
    """Where a journal begins: an engine in which nothing is unfinished."""

    policy: Policy
    step: int = 0
    num_requests: int = 0  # numbers that were given out before
    num_samples: int = 0
    pool: PoolState | None = None  # None: nothing was ever in it
    contents: tuple[CachedBlock, ...] = ()


class Journal:
    """The inputs and results of one engine, in order.

    Args:
        policy: The policy that the engine begins with; it must not have been asked yet.
    """

    def __init__(self, policy: Any) -> None:
        self.base = Base(pristine(policy))
        self._entries: list[Entry] = []
        self._places: list[int] = []  # of the steps among the entries
        self._num_tokens = 0
        self._last: Stepped | None = None
        self._is_broken = False

    @property
    def first_step(self) -> int:
        """The first step that can be gone back to."""
        return self.base.step

    @property
    def next_step(self) -> int:
        """The step that would be written down next."""
        return self.base.step + len(self._places)

    @property
    def is_long(self) -> bool:
        """Whether the older part is to go, once nothing is unfinished."""
        return self._is_broken or self._num_tokens > MAX_TOKENS or len(self._places) > MAX_STEPS

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    # ---- writing

    def added(self, samples: tuple[Request, ...], queued_s: float) -> None:
        """Note that a request joined the line."""
        first = samples[0]
        params = tuple([sample.params for sample in samples])
        self._entries.append(
            Added(samples, queued_s, first.priority, dict(first.tags), params, first.max_tokens)
        )
        self._num_tokens += first.num_prompt_tokens

    def note(self, entry: Changed | Ended | PolicyChosen | Reset) -> None:
        """Note what happened between two steps."""
        self._entries.append(entry)

    def stepped(
        self,
        plan: StepPlan,
        result: StepResult,
        clock: StepClock,
        *,
        refused: list[tuple[str, str]],
        is_lost: bool,
    ) -> None:
        """Note a step; one that follows a step that broke off makes the journal useless so far."""
        last = self._last
        chunk_ids = tuple([chunk[0] for chunk in plan.chunks])
        if last is not None and last.chunk_ids == chunk_ids:
            chunk_ids = last.chunk_ids
        tokens = result.tokens
        others = {
            name: own for name, own in tokens.items() if len(own) != 1 or own[0][1:] != _PLAIN
        }
        if others:
            tokens = {name: own for name, own in tokens.items() if name not in others}
        sampled_ids = tuple(tokens)
        self._is_broken |= plan.step != self.next_step
        unready = [name for name, cause in refused if cause == "grammar"] if refused else ()
        entry = Stepped(
            step=plan.step,
            clock=clock,
            chunk_ids=chunk_ids,
            ends=array("q", [chunk[2] for chunk in plan.chunks]),
            sampled_ids=chunk_ids if sampled_ids == chunk_ids else sampled_ids,
            token_ids=array("q", [own[0][0] for own in tokens.values()]),
            others=others,
            errors=result.errors,
            prompt_scores=result.prompt_scores,
            embeddings=result.embeddings,
            times=result.times,
            slow_path=result.slow_path,
            unready_ids=frozenset(unready),
            is_lost=is_lost,
        )
        self._places.append(len(self._entries))
        self._entries.append(entry)
        self._num_tokens += len(result.tokens)
        self._last = entry

    def begin_at(self, base: Base) -> None:
        """Drop everything: nothing is unfinished, and ``base`` says what is left."""
        self.base = base
        self._entries, self._places = [], []
        self._num_tokens, self._last, self._is_broken = 0, None, False

    # ---- reading

    def require(self, step: int) -> None:
        """Raise EngineError unless the moment before ``step`` can be reached."""
        if isinstance(step, bool) or not isinstance(step, int):
            raise TypeError(f"a step is an integer, not {step!r:.80}")
        if self._is_broken:
            raise EngineError(
                "a step broke off, so what came before cannot be derived again; going back is "
                "possible from the next moment on at which nothing is unfinished"
            )
        if not self.first_step <= step <= self.next_step:
            raise EngineError(
                f"step {step} is out of reach: the journal goes from step {self.first_step} to "
                f"step {self.next_step}, which is next"
            )

    def before(self, step: int) -> list[Entry]:
        """Return all that happened before a step; what was put in line just before it included."""
        self.require(step)
        if step == self.next_step:
            return list(self._entries)
        return self._entries[: self._places[step - self.base.step]]

    def frozen(self, step: int | None = None) -> Journal:
        """Return a copy that ends before ``step``, or that goes on no more."""
        entries = list(self._entries) if step is None else self.before(step)
        copy = Journal(self.base.policy)
        copy.base, copy._is_broken = self.base, self._is_broken
        for entry in entries:
            copy._take(entry)
        return copy

    def cut(self, step: int) -> None:
        """Forget ``step`` and all that followed."""
        rest = self.frozen(step)
        self._entries, self._places = rest._entries, rest._places
        self._num_tokens, self._last = rest._num_tokens, rest._last

    def _take(self, entry: Entry) -> None:
        if isinstance(entry, Stepped):
            self._places.append(len(self._entries))
            self._num_tokens += len(entry.sampled_ids) + len(entry.others)
            self._last = entry
        elif isinstance(entry, Added):
            self._num_tokens += entry.samples[0].num_prompt_tokens
        self._entries.append(entry)

    def __repr__(self) -> str:
        return f"Journal(steps {self.first_step} to {self.next_step - 1}, {len(self)} entries)"


def pristine(policy: Any) -> Policy:
    """Return a policy of one's own that starts as the given one is now.

    A policy that cannot be copied is asked again itself: one that keeps a state of its own may
    then answer differently, which is noticed.
    """
    resolved = resolve_policy(policy)
    try:
        return deepcopy(resolved)
    except Exception:
        return resolved
