"""Compute a step and wait for its tokens, whatever anybody wants to see of it.

Request path 5/8: from runtime.model_runner, to models.decoder and sampling.sampler.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from toolkit.cache.storage import KVStorage
from toolkit.engine.plan import PromptScores, SampledToken, StepPlan, StepResult, StepTimes
from toolkit.models import Decoder, FlatBatch
from toolkit.request import Request
from toolkit.runtime.cuda_graphs import DecodeGraphs
from toolkit.runtime.hooks import ActiveHooks, HookedStep
from toolkit.runtime.pooling import Pooler
from toolkit.runtime.prompt_scores import PromptScorer
from toolkit.runtime.rows import RowTable, sampled_rows
from toolkit.sampling import RowState, Sampler, SamplerOutput

if TYPE_CHECKING:  # it loads transformers' modelling code, which most models do without
    from toolkit.models import TransformersDecoder
    from toolkit.runtime.tensor_parallel import ShardedDecoder

__all__ = ["WholeSteps"]


@dataclass(frozen=True, slots=True)
class _Computed:
    """What a step computed before anything is sampled."""

    prepared: float  # when its inputs were ready
    batch: FlatBatch | None  # None: a graph was replayed
    logits: Tensor | None  # [samples, vocab]
    hooks: HookedStep | None = None
    prompt_scores: Mapping[str, PromptScores] = field(default_factory=dict)
    embeddings: Mapping[str, bytes] = field(default_factory=dict)
    errors: Mapping[str, BaseException] = field(default_factory=dict)


class WholeSteps:
    """The steps of one model that are computed one at a time.

    Args:
        decoder: The model; ``use`` puts another one in its place between two steps.
        storage: Its keys and values.
        rows: The block tables of those that run.
        sampler: Chooses tokens.
        hooks: What is shown of activations.
        pooler: Makes embeddings.
        graphs: Of steps of single tokens; None for none.
        requests: Everybody, by id; its owner adds and removes.
    """

    def __init__(
        self,
        decoder: Decoder | TransformersDecoder | ShardedDecoder,
        storage: KVStorage,
        rows: RowTable,
        *,
        sampler: Sampler,
        hooks: ActiveHooks,
        pooler: Pooler,
        graphs: DecodeGraphs | None,
        requests: Mapping[str, Request],
    ) -> None:
        self._storage = storage
        self._rows = rows
        self._sampler = sampler
        self._hooks = hooks
        self._pooler = pooler
        self._graphs = graphs
        self._requests = requests
        self.use(decoder)

    def use(self, decoder: Decoder | TransformersDecoder | ShardedDecoder) -> None:
        """Compute with this model from the next step on."""
        self.decoder = decoder
        self._scorer = PromptScorer(decoder.logits, self._sampler)

    def scores_prompts_of(self, requests: Iterable[Request]) -> bool:
        """Whether a prompt of these requests is still to be scored."""
        return self._scorer.is_wanted(requests)

    def run(self, plan: StepPlan, started: float) -> StepResult:
        """Compute a step and wait for all of it."""
        rows = sampled_rows(plan, self._requests)
        step = self._replay(plan) if self._fits_graph(plan) else self._compute(plan, len(rows))
        computed = time.perf_counter()
        tokens: dict[str, tuple[SampledToken, ...]] = {}
        errors, slow_path = dict(step.errors), "none"
        if self._graphs is not None and step.batch is not None:
            slow_path = "graph_miss"
        if step.logits is not None:
            output = self._sampler.sample(step.logits, rows)
            for index, row in enumerate(rows):
                if index in output.errors:
                    errors[row.request.id] = output.errors[index]
                else:
                    tokens[row.request.id] = (_sampled(output, index),)
            for index, facts in output.facts.items():
                facts.update(self._surroundings(plan, rows[index]))
            if any(row.request.params.logits_processors for row in rows):
                slow_path = "processors"
        if step.hooks is not None:
            slow_path = "hooks"
            errors |= step.hooks.errors
            step.hooks.end()
        done = time.perf_counter()
        times = StepTimes(step.prepared - started, computed - step.prepared, done - computed)
        return StepResult(
            tokens=tokens,
            errors=errors,
            prompt_scores=step.prompt_scores,
            embeddings=step.embeddings,
            times=times,
            slow_path=slow_path,
        )

    def _fits_graph(self, plan: StepPlan) -> bool:
        return (
            self._graphs is not None
            and not self._hooks.is_active
            and not self.scores_prompts_of(self._owners(plan))
            and self._graphs.serve(plan)
        )

    def _replay(self, plan: StepPlan) -> _Computed:
        assert self._graphs is not None
        tokens = self._rows.single_tokens(plan)
        prepared = time.perf_counter()
        return _Computed(prepared, None, self._graphs.logits(tokens))

    def _compute(self, plan: StepPlan, num_samples: int) -> _Computed:
        """Compute a step's states, and all that somebody wants of them."""
        batch = self._rows.flat_batch(plan)
        prepared = time.perf_counter()
        prompt_scores: dict[str, PromptScores] = {}
        pooled = self._pooler.plan(plan)
        wanted = batch.logit_rows if pooled is None else pooled.rows_after(batch.logit_rows)
        hooks = self._hooks.step(plan, batch)
        if hooks is not None or self.scores_prompts_of(self._owners(plan)):
            hidden = self.all_states(batch, hooks)
            prompt_scores = self._scorer.score(plan, self._requests, hidden)
            hidden = hidden[wanted]
        else:
            hidden = self.decoder(batch, self._storage.layers, rows=wanted)
        embeddings: dict[str, bytes] = {}
        errors: dict[str, BaseException] = {}
        if pooled is not None:
            embeddings, errors = self._pooler.take(pooled, hidden[num_samples:])
            hidden = hidden[:num_samples]
        logits = self._logits(hidden, hooks) if num_samples else None
        return _Computed(prepared, batch, logits, hooks, prompt_scores, embeddings, errors)

    def _owners(self, plan: StepPlan) -> Iterator[Request]:
        return (self._requests[chunk.request_id] for chunk in plan.chunks)

    def _surroundings(self, plan: StepPlan, row: RowState) -> dict[str, Any]:
        """Return the facts of a token that the sampler cannot know: who ran beside it, and where.

        ``block_ids`` are the blocks that attention read; the first ``num_reused_tokens`` tokens in
        them were there when the request was admitted, or resumed, for the last time.
        """
        name = row.request.id
        return {
            "request_id": name,
            "step": plan.step,
            "batch": [chunk.request_id for chunk in plan.chunks],
            "block_ids": self._rows.block_ids(name, row.position),
            "block_size": self._storage.layout.block_size,
            "num_reused_tokens": self._rows.num_found(name),
            "num_cached_tokens": row.request.num_cached_tokens,
        }

    def all_states(self, batch: FlatBatch, hooks: HookedStep | None) -> Tensor:
        """Return the states [num_tokens, width] of a whole step, its activations shown."""
        layers = self._storage.layers
        hidden: Tensor
        if hooks is None:
            hidden = self.decoder(batch, layers)
        else:
            probs: dict[str, Any] = {"attn_probs": hooks.attn_probs, "probs_rows": hooks.probs_rows}
            hidden = self.decoder(batch, layers, hooks.tap, **probs)
            hooks.score_prompts(hidden, self.decoder.logits)
        return hidden

    def _logits(self, hidden: Tensor, hooks: HookedStep | None) -> Tensor:
        return self.decoder.logits(hidden, None if hooks is None else hooks.tap)


def _sampled(output: SamplerOutput, index: int) -> SampledToken:
    """Return the token of one row."""
    return SampledToken(
        output.token_ids[index],
        output.logprobs.get(index),
        index in output.last_rows,
        "grammar" if index in output.forced_rows else None,
        output.entropies.get(index),
        output.facts.get(index),
    )
