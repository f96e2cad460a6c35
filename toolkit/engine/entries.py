"""What a journal consists of: inputs of an engine, and the results of its steps."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from toolkit.cache.blocks import PoolState
from toolkit.engine.plan import PromptScores, SampledToken, StepPlan, StepResult, StepTimes
from toolkit.engine.policies import resolve_policy
from toolkit.engine.policy import Policy
from toolkit.request import FinishReason, Request, SamplingParams, Status

__all__ = [
    "Added",
    "Base",
    "CachedBlock",
    "Changed",
    "Ended",
    "Entry",
    "PolicyChosen",
    "Reset",
    "StepClock",
    "Stepped",
    "pristine",
]


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
    """When a step began, was planned, had its results, ended, and had sent its tokens."""

    start_s: float
    scheduled_s: float
    ran_s: float
    end_s: float
    sent_s: float


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
