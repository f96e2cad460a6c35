"""The words between scheduler and runner: what to compute in a step, and what came of it.

Plain Python values, never tensors: a plan can be printed, recorded, replayed, or consulted by a
simulator in place of a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolkit.cache.blocks import BlockCopy
from toolkit.request import Logprob, Request

__all__ = [
    "UNKNOWN_TOKEN",
    "PromptScores",
    "Restoration",
    "SampledToken",
    "ScheduledChunk",
    "StepPlan",
    "StepResult",
    "StepTimes",
]


# Stands in a foreseen chunk for the token that the step before it samples.
UNKNOWN_TOKEN = -1


class ScheduledChunk(NamedTuple):
    """Tokens [start, end) of one request, to run in this step.

    A NamedTuple because a step makes one per running request, and a frozen dataclass takes three
    times as long to build.
    """

    request_id: str
    start: int
    end: int
    token_ids: tuple[int, ...]
    # Appended to the request's block table; the whole table when ``is_first``.
    new_block_ids: tuple[int, ...]
    # First chunk since the request was admitted or resumed, or since its table was replaced: the
    # runner starts a fresh row.
    is_first: bool
    # The chunk reaches the last known token, so the next one is sampled from its logits; never
    # where the request pools.
    samples: bool

    @property
    def num_tokens(self) -> int:
        """Tokens computed by this chunk."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step computes."""

    step: int
    chunks: tuple[ScheduledChunk, ...]
    copies: tuple[BlockCopy, ...] = ()
    preempted_ids: tuple[str, ...] = ()
    admitted_ids: tuple[str, ...] = ()
    num_tokens: int = 0
    token_budget: int = 0
    # What kept more from running: "budget", "seqs", "blocks", "policy" or "none".
    limited_by: str = "none"
    # What the next step computes if nothing unforeseen happens: a runner may begin with it before
    # it answers. The next plan is made from what has happened, and need not contain any of these.
    foreseen: tuple[ScheduledChunk, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.chunks


class SampledToken(NamedTuple):
    """One sampled token; ``logprobs`` maps token ids to what was asked for, chosen one first."""

    token_id: int
    logprobs: dict[int, Logprob] | None = None
    is_last: bool = False  # the request's grammar is complete and allows nothing more
    # Where it is from, if not just from the distribution: "grammar" (which left one token, or
    # replaced it), "draft" or "forced". None: "greedy" or "sampled", as the parameters say.
    source: str | None = None
    # Of the model's own distribution, in nats; only with logprobs or at the level "explain".
    entropy_nats: float | None = None
    facts: dict[str, Any] | None = None  # what the sampler did, as JSON; at the level "explain"


class PromptScores(NamedTuple):
    """Log-probabilities of consecutive prompt tokens, of which ``start`` is the first."""

    start: int
    entries: tuple[dict[int, Logprob], ...]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds the runner spent on the parts of a step."""

    prepare_s: float = 0.0
    forward_s: float = 0.0
    sample_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step computed: sampled tokens, an embedding or an error, by request id."""

    tokens: Mapping[str, tuple[SampledToken, ...]]
    errors: Mapping[str, BaseException] = field(default_factory=dict)
    # Only of requests whose params ask for prompt_logprobs.
    prompt_scores: Mapping[str, PromptScores] = field(default_factory=dict)
    # Of requests that pool, when the chunk reached their last token: float32, little-endian.
    embeddings: Mapping[str, bytes] = field(default_factory=dict)
    times: StepTimes = StepTimes()
    # Why the step could not take the fastest path: "processors", "hooks", "graph_miss" (it is not
    # one of the steps that were captured) or "none".
    slow_path: str = "none"


@dataclass(frozen=True, slots=True)
class Restoration:
    """What ``Runner.restore`` is given: tokens to compute, and who is unfinished afterwards.

    Each chunk of ``steps`` brings its whole block table and samples nothing, and its request may
    have ended since.
    """

    steps: tuple[StepPlan, ...]
    unfinished: tuple[Request, ...]
    tables: Mapping[str, tuple[int, ...]]  # of those that run
    num_found: Mapping[str, int]  # tokens that they found in the cache when they began to run
    requests: Mapping[str, Request]  # everybody whose chunks occur
