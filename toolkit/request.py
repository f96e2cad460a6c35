"""What is asked of the engine and what it answers: one request, its parameters, its output.

Torch-free. A ``Request`` is written by its scheduler alone; everybody else reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from enum import Enum
from struct import unpack
from typing import Any, Protocol, cast

from toolkit.beam_search_params import BeamSearchParams
from toolkit.pooling_params import PoolingParams
from toolkit.sampling_params import SamplingParams

__all__ = [
    "WAIT_CAUSES",
    "BlockSharing",
    "CompletionOutput",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "FinishReason",
    "HookedPositions",
    "Logprob",
    "OutputPiece",
    "OutputText",
    "PoolingParams",
    "Request",
    "RequestOrigin",
    "RequestOutput",
    "SamplingParams",
    "Status",
]


class Status(Enum):
    """Where a request is in its life; the last three are ends."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"
    FAILED = "failed"
    ABORTED = "aborted"

    @property
    def is_end(self) -> bool:
        """Whether nothing follows this status."""
        return self in _ENDS


# What a request can wait for before its first token; "host" is its arrival, every gap between two
# steps and every pause.
WAIT_CAUSES = ("budget", "seqs", "blocks", "policy", "grammar", "host")

_ENDS = frozenset((Status.FINISHED, Status.FAILED, Status.ABORTED))


class FinishReason(str, Enum):
    """Why the last token was the last; the values are OpenAI's where OpenAI has one."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token's log-probability, in nats, under the model and under the sampler.

    ``logprob`` is raw, as in vLLM: of the model's logits, before any step of the sampler; ``rank``
    counts from 1 among these. ``logprob_processed`` is of the distribution that was drawn from,
    after the whole chain: -inf for a token that was cut. A greedy request has neither temperature
    nor cut-offs, so there it is what the logits give after all other steps. For a prompt token it
    is what the standard steps, without the request's own processors, would have given had that
    token been the first to be sampled after the tokens before it.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None
    logprob_processed: float | None = None

    @property
    def logprob_raw(self) -> float:
        """Another name of ``logprob``, beside ``logprob_processed``."""
        return self.logprob


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """Where a request came from, when it came over HTTP."""

    api_id: str
    endpoint: str
    client_request_id: str | None = None


class OutputText(Protocol):
    """The text of one request as it grows; `toolkit.text` implements it."""

    def push(self, token_id: int, check_stop: bool) -> str | None:
        """Add a token; return the stop string that it completed, if any."""
        ...

    def take(self) -> str:
        """Return the text that became certain since the last call."""
        ...

    def finish(self) -> None:
        """Make what was held back certain: no token follows."""
        ...

    @property
    def text(self) -> str:
        """All text so far."""
        ...


class HookedPositions(Protocol):
    """What a request's hooks want to see; `toolkit.runtime.hooks` implements it."""

    def first_wanted(self, position: int) -> int | None:
        """Return the first position from this one on whose activations are to be captured."""
        ...


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One sample of a request (vLLM's names)."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None
    stop_reason: int | str | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    cumulative_logprob: float | None = None
    beam_score: float | None = None  # of a beam search: what the samples are ranked by


@dataclass(frozen=True, slots=True)
class BlockSharing:
    """Blocks that the beams of one search held, as means over its steps.

    The saving is that of figure 15 in Kwon et al. 2023 (PagedAttention): the blocks that sharing
    spared, in parts of those that the beams would have held without.

    >>> BlockSharing(num_blocks_unshared=40.0, num_blocks=18.0).saved
    0.55
    """

    num_blocks_unshared: float  # the lengths of the beams' tables, summed
    num_blocks: float  # distinct blocks in them

    @property
    def saved(self) -> float:
        """The fraction of blocks that sharing saved."""
        return 1.0 - self.num_blocks / self.num_blocks_unshared if self.num_blocks else 0.0


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """A request's answer: its prompt and its samples (vLLM's names)."""

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: list[CompletionOutput]
    finished: bool
    num_cached_tokens: int
    error: BaseException | None = None
    # By prompt token, None for the first; the list grows while the prompt is computed.
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    block_sharing: BlockSharing | None = None  # of a beam search

    @property
    def text(self) -> str:
        """The first sample's text."""
        return self.outputs[0].text


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """A prompt's vector (vLLM's names); no numbers until its last token is computed."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """How many numbers there are."""
        return len(self.embedding)

    def __repr__(self) -> str:
        return f"EmbeddingOutput(hidden_size={self.hidden_size})"


@dataclass(frozen=True, slots=True)
class EmbeddingRequestOutput:
    """The answer to a request that pools (vLLM's names)."""

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: EmbeddingOutput
    finished: bool
    num_cached_tokens: int
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """What one step added to one sample: the unit of every stream."""

    request_id: str
    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One sequence of tokens: the prompt, then what was sampled after it.

    The engine's one idea: ``num_computed_tokens`` (tokens whose keys and values are in the cache)
    chases ``num_tokens``. A prompt, a decode step, a prefix hit and the recomputation after a
    preemption differ only in how far behind it is.

    With ``SamplingParams(n=3)`` there are three requests: the one ``engine.add`` returns is sample
    0 and lists all of them in ``samples``; the others carry its id as ``parent_id``. The beams of
    a search are such samples too: while it runs they pass their tokens on to one another, and at
    its end sample i becomes the i-th best sequence.

    With ``PoolingParams`` nothing is sampled: the request ends with its prompt.
    """

    # What was asked.
    id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    arrival_index: int
    arrival_s: float
    seed: int
    prompt: str | None = None
    priority: int = 0
    tags: dict[str, Any] = field(default_factory=dict)
    hooks: Sequence[Any] = ()
    cache_salt: str | None = None
    origin: RequestOrigin | None = None
    parent_id: str | None = None
    sample_index: int = 0
    eos_token_ids: frozenset[int] = frozenset()
    bad_word_ids: tuple[tuple[int, ...], ...] = ()  # params.bad_words, as tokens
    max_tokens: int = 0
    tokenize_s: float = 0.0
    beam: BeamSearchParams | None = None
    pooling: PoolingParams | None = None
    # What is still done for it on another thread: until then it waits with cause "grammar".
    preparation: Future[Any] | None = None
    hooked: HookedPositions | None = None  # what the runner made of hooks and open captures

    # Where it stands.
    status: Status = Status.WAITING
    token_ids: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)  # of full blocks; the cache's memo
    num_computed_tokens: int = 0
    logprobs: list[dict[int, Logprob]] | None = None
    cumulative_logprob: float = 0.0
    # Of the prompt's first tokens, as far as it was computed; all samples share one list.
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    text: OutputText | None = None
    samples: tuple[Request, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    error: BaseException | None = None
    is_taken_back: bool = False  # the engine went back to before it was added
    beam_score: float | None = None
    block_sharing: BlockSharing | None = None
    num_pooled_tokens: int = 0  # of the prompt's first: the runner has pooled their hidden states
    embedding: bytes | None = None  # float32 numbers, little-endian
    num_shown_tokens: int = 0  # of its first: their activations have been seen, if it is hooked
    sure_length: int = 0  # with fewer tokens no sampled one can end it: see engine.stopping
    is_foreseeable: bool = False  # in an engine that looks ahead: see engine.foresight

    # What happened to it.
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    num_recomputed_tokens: int = 0
    num_lost_tokens: int = 0  # had been computed when it was preempted
    num_steps: int = 0
    peak_blocks: int = 0
    # Where its time went, up to its first token or its end: engine.waits keeps these.
    waits_s: dict[str, float] = field(default_factory=dict)  # by cause, see WAIT_CAUSES
    prefill_s: float = 0.0  # whole steps that computed for it
    preempted_s: float = 0.0  # after the first token too: until it had caught up again
    preempted_before_first_s: float = 0.0
    emit_s: float = 0.0  # from the end of the step until its first token was sent
    queued_s: float | None = None
    first_scheduled_s: float | None = None
    first_token_s: float | None = None  # when it was sent, as the next one
    last_token_s: float | None = None
    finished_s: float | None = None

    def __deepcopy__(self, memo: Any) -> Request:
        return self  # who copies a policy that knows requests means these

    def __post_init__(self) -> None:
        if not self.token_ids:
            self.token_ids = list(self.prompt_token_ids)
        if not self.samples:
            self.samples = (self,)

    def reborn(self) -> Request:
        """Return a request that asks for the same and to which nothing has happened yet."""
        return Request(**{name: getattr(self, name) for name in _asked()})

    def forget(self) -> None:
        """Become what ``reborn()`` would return."""
        fresh = self.reborn()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    @property
    def num_prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        """Known tokens: the prompt's and the sampled ones."""
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        """Tokens sampled so far."""
        return len(self.token_ids) - len(self.prompt_token_ids)

    @property
    def output_token_ids(self) -> list[int]:
        """A copy of the sampled tokens."""
        return self.token_ids[len(self.prompt_token_ids) :]

    @property
    def num_reusable_tokens(self) -> int:
        """Tokens at the start whose keys and values may come from the prefix cache.

        A token that must be computed by this request, because its logits, its hidden state or its
        activations are still wanted, ends them: none of these is cached.
        """
        if self.hooked is None:
            return self._num_reusable_unhooked
        shown = max(sample.num_shown_tokens for sample in self.samples)  # they share the prompt
        first = self.hooked.first_wanted(
            max(self.num_shown_tokens, min(shown, self.num_prompt_tokens))
        )
        unhooked = self._num_reusable_unhooked
        return unhooked if first is None else min(first, unhooked)

    @property
    def _num_reusable_unhooked(self) -> int:
        if self.pooling is not None:
            return self.pooling.num_reusable_tokens(self.num_pooled_tokens, self.num_tokens)
        known = self.prompt_logprobs
        if known is None or len(known) == self.num_prompt_tokens:
            return self.num_tokens
        return len(known) - 1  # the logits of this one score the first token not yet known

    @property
    def samples_blind(self) -> bool:
        """Whether a token can be chosen while nobody but the device knows the one before it.

        Not where a grammar, a penalty, a processor or a bad word of several tokens looks at it, or
        where more than the token is wanted: log-probabilities, a beam's candidates, an embedding.
        """
        params = self.params
        return (
            self.beam is None
            and self.pooling is None
            and params.structured_outputs is None
            and params.logprobs is None
            and params.prompt_logprobs is None
            and not params.logits_processors
            and not params.has_penalties
            and all(len(word) == 1 for word in self.bad_word_ids)
        )

    @property
    def is_finished(self) -> bool:
        """Whether this sample has ended, well or not."""
        return self.status.is_end

    @property
    def output(self) -> RequestOutput:
        """The answer so far, with every sample of it; an ``EmbeddingRequestOutput`` if it pools."""
        if self.pooling is not None:
            # Typed as what nearly all requests answer; embedding_output has the other type.
            return cast("RequestOutput", self.embedding_output)
        return RequestOutput(
            request_id=self.id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=[sample.completion for sample in self.samples],
            finished=all(sample.is_finished for sample in self.samples),
            num_cached_tokens=self.num_cached_tokens,
            error=next((sample.error for sample in self.samples if sample.error), None),
            prompt_logprobs=self.prompt_logprobs,
            block_sharing=self.block_sharing,
        )

    @property
    def embedding_output(self) -> EmbeddingRequestOutput:
        """The answer of a request that pools; its vector is empty until it has ended well."""
        numbers = self.embedding or b""
        return EmbeddingRequestOutput(
            request_id=self.id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=EmbeddingOutput(list(unpack(f"<{len(numbers) // 4}f", numbers))),
            finished=self.is_finished,
            num_cached_tokens=self.num_cached_tokens,
            error=self.error,
        )

    @property
    def completion(self) -> CompletionOutput:
        """This sample's part of the answer."""
        has_logprob = self.logprobs is not None or self.beam_score is not None
        return CompletionOutput(
            index=self.sample_index,
            text=self.text.text if self.text is not None else "",
            token_ids=tuple(self.output_token_ids),
            finish_reason=str(self.finish_reason) if self.finish_reason else None,
            stop_reason=self.stop_reason,
            logprobs=self.logprobs,
            cumulative_logprob=self.cumulative_logprob if has_logprob else None,
            beam_score=self.beam_score,
        )

    def __repr__(self) -> str:
        return (
            f"Request({self.id!r}, {self.status.value}, computed {self.num_computed_tokens} of "
            f"{self.num_tokens} tokens, {self.num_output_tokens} sampled)"
        )


def _asked() -> list[str]:
    """Return the names of the fields that say what is asked: all before ``status``."""
    names = [each.name for each in fields(Request)]
    return names[: names.index("status")]
