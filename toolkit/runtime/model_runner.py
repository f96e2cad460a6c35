"""Run a plan on the real model: tensors in, sampled tokens out.

Request path 5/8: from engine.engine, to models.decoder and sampling.sampler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from toolkit.cache.storage import KVStorage
from toolkit.config import EngineConfig
from toolkit.engine.plan import (
    PromptScores,
    Restoration,
    SampledToken,
    StepPlan,
    StepResult,
    StepTimes,
)
from toolkit.errors import EngineError, InvalidParameter, InvalidRequest
from toolkit.models import Decoder, FlatBatch
from toolkit.request import Logprob, Request
from toolkit.runtime.cuda_graphs import Capture, DecodeGraphs
from toolkit.runtime.decode_buffers import DecodeBuffers
from toolkit.runtime.flight import Flight, Launcher, are_single_tokens
from toolkit.runtime.hooks import ActiveHooks, HookedStep
from toolkit.runtime.openmp import release_pool
from toolkit.runtime.pooling import Pooler
from toolkit.runtime.rows import RowTable
from toolkit.sampling import RowState, Sampler, SamplerOutput, check_token_ids

if TYPE_CHECKING:  # it loads transformers' modelling code, which most models do without
    from toolkit.models import TransformersDecoder

__all__ = ["ModelRunner"]

# Logits of a prompt are made and scored a piece at a time: all at once they could take gigabytes.
_MAX_SCORED_LOGITS = 1 << 22  # 16 MiB, of which a handful exist at once
_MAX_SCORED_ROWS = 128  # each has its parameters listed anew


class ModelRunner:
    """A decoder, its KV storage and a sampler behind the engine's ``Runner`` protocol.

    Args:
        decoder: The model.
        storage: Its keys and values.
        sampler: Chooses tokens.
        max_num_seqs: Requests that can run at once.
        max_model_len: Tokens of the longest request.
        token_text: Makes a token's text, for what hooks show.
        capture: Makes the graphs of steps of single tokens, ``CudaCapture(device)`` say; the
            storage has ``max_num_seqs`` spare slots for them then. None for no graphs.
    """

    def __init__(
        self,
        decoder: Decoder | TransformersDecoder,
        storage: KVStorage,
        sampler: Sampler,
        *,
        max_num_seqs: int,
        max_model_len: int,
        token_text: Callable[[int], str] | None = None,
        capture: Capture | None = None,
    ) -> None:
        block_size = storage.layout.block_size
        max_blocks = -(-max_model_len // block_size)
        self.decoder = decoder
        self.storage = storage
        self.sampler = sampler
        self.hooks = ActiveHooks(decoder, token_text)
        self._token_text = token_text
        self._rows = RowTable(max_num_seqs, max_blocks, block_size, decoder.device)
        self._capture = capture
        self.graphs: DecodeGraphs | None = None
        if capture is not None:
            buffers = DecodeBuffers(
                max_num_seqs=max_num_seqs,
                max_blocks=max_blocks,
                block_size=block_size,
                spare_slots=storage.spare_slots,
                device=decoder.device,
            )
            self.graphs = DecodeGraphs(self._forward, buffers, capture)
        self._launcher = Launcher(
            self._forward, self._rows, sampler, self.graphs, decoder.device
        )
        self._flight: Flight | None = None  # begun before it is known whether it will be wanted
        self._requests: dict[str, Request] = {}
        self._pooler = Pooler(decoder.width)
        release_pool()  # of the thread that loaded the model

    def prepare(self, request: Request) -> None:
        """Refuse what this model does not have, begin to compile a grammar, remember the request.

        Raises:
            InvalidRequest: a prompt token or a parameter names a token the model does not have,
                nothing may be sampled, no answer can have the form that is asked for, an
                embedding would have more numbers than a state, or a hook does not fit the model.
        """
        vocab_size = self.decoder.spec.vocab_size
        if max(request.prompt_token_ids) >= vocab_size:
            raise InvalidRequest(
                f"prompt token {max(request.prompt_token_ids)} is outside the vocabulary of "
                f"{vocab_size} tokens",
                param="prompt",
            )
        if request.beam is not None and (request.params.logprobs or 0) > vocab_size:
            raise InvalidParameter(
                f"beam_width={request.beam.beam_width} needs {request.params.logprobs} candidates "
                f"of each beam; the vocabulary has {vocab_size} tokens",
                param="beam_width",
            )
        check_token_ids(request, vocab_size)
        self._pooler.start(request)
        self.hooks.start(request)
        if request.params.structured_outputs is not None:
            request.preparation = self._prepare_grammar(request)
        self._requests[request.id] = request
        release_pool()  # the steps may run in another thread

    def _prepare_grammar(self, request: Request) -> Future[Any]:
        if self.sampler.grammars is None:
            raise InvalidParameter(
                "structured_outputs needs to know the texts of the tokens, and this engine has no "
                "tokenizer",
                param="structured_outputs",
            )
        return self.sampler.grammars.prepare(request)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        """Compute one step; begin with what is foreseen of the next one before waiting for it."""
        # OpenMP counts threads for each calling thread; torch sets its own number when asked.
        torch.get_num_threads()
        started = time.perf_counter()
        flight, self._flight = self._flight, None
        for request_id in plan.preempted_ids:
            self.sampler.history.forget(request_id)
        for request_id in plan.admitted_ids:
            self.sampler.history.start(self._requests[request_id])
        self._rows.apply(plan)
        self._copy_blocks(plan)
        if flight is None and not plan.foreseen:
            return self._run_whole(plan, started)
        return self._run_ahead(plan, flight, started)

    def _run_ahead(self, plan: StepPlan, flight: Flight | None, started: float) -> StepResult:
        """Compute what of a step is not in flight already, and launch what is foreseen behind it.

        What is in flight counts only where nobody wants to look into the step by now.
        """
        covered = set() if flight is None else flight.covered(plan, self._requests)
        if not self._is_blind(covered):
            covered = set()
        rest = _without(plan, covered)
        launched, result = None, StepResult(tokens={})
        if self._is_blind([chunk.request_id for chunk in rest.chunks]):
            if rest.chunks:
                launched = self._launcher.launch(rest, self._requests)
            if plan.foreseen:
                self._flight = self._launcher.launch(_foreseen(plan), self._requests)
        else:
            result = self._run_whole(rest, started)
        prepared = time.perf_counter()
        tokens, errors = dict(result.tokens), dict(result.errors)
        slow_path = result.slow_path
        wanted = {chunk.request_id for chunk in rest.chunks}
        for part, names in ((flight, covered), (launched, wanted)):
            if part is not None and names:
                own_tokens, own_errors = part.land(names)
                tokens |= own_tokens
                errors |= own_errors
                if part.missed_graph and slow_path == "none":
                    slow_path = "graph_miss"
        landed = time.perf_counter()
        times = result.times
        times = StepTimes(
            times.prepare_s if result.tokens else prepared - started,
            times.forward_s + landed - prepared,
            times.sample_s,
        )
        return StepResult(
            tokens={c.request_id: tokens[c.request_id] for c in plan.chunks if c.request_id in tokens},
            errors=errors,
            prompt_scores=result.prompt_scores,
            embeddings=result.embeddings,
            times=times,
            slow_path=slow_path,
        )

    def _is_blind(self, request_ids: Collection[str]) -> bool:
        """Whether nobody looks into the steps of these requests before their tokens are there."""
        requests = [self._requests[request_id] for request_id in request_ids]
        return (
            not self.hooks.is_active
            and not any(request.pooling is not None for request in requests)
            and not any(map(_lacks_prompt_scores, requests))
            and self.sampler.draws_blind(requests)
        )

    def _forward(self, batch: FlatBatch) -> Tensor:
        """Return the logits of a batch's samples."""
        hidden = self.decoder(batch, self.storage.layers, rows=batch.logit_rows)
        return self.decoder.logits(hidden)

    def _run_whole(self, plan: StepPlan, started: float) -> StepResult:
        """Compute a step and wait for all of it."""
        batch = self._rows.flat_batch(plan)
        prepared = time.perf_counter()
        rows = [
            RowState(self._requests[chunk.request_id], chunk.end)
            for chunk in plan.chunks
            if chunk.samples
        ]
        prompt_scores: dict[str, PromptScores] = {}
        pooled = self._pooler.plan(plan)
        wanted = batch.logit_rows if pooled is None else pooled.rows_after(batch.logit_rows)
        hooks = self.hooks.step(plan, batch)
        if hooks is not None or self._scores_prompts(plan):
            hidden = self._all_states(batch, hooks)
            prompt_scores = self._score_prompts(plan, hidden)
            hidden = hidden[wanted]
        else:
            hidden = self.decoder(batch, self.storage.layers, rows=wanted)
        embeddings: dict[str, bytes] = {}
        errors: dict[str, BaseException] = {}
        if pooled is not None:
            embeddings, errors = self._pooler.take(pooled, hidden[len(rows) :])
            hidden = hidden[: len(rows)]
        logits = self._logits(hidden, hooks) if rows else None
        computed = time.perf_counter()
        tokens: dict[str, tuple[SampledToken, ...]] = {}
        slow_path = "none"
        if logits is not None:
            output = self.sampler.sample(logits, rows)
            for index, row in enumerate(rows):
                if index in output.errors:
                    errors[row.request.id] = output.errors[index]
                else:
                    tokens[row.request.id] = (_sampled(output, index),)
            for index, facts in output.facts.items():
                facts.update(self._surroundings(plan, rows[index]))
            if any(row.request.params.logits_processors for row in rows):
                slow_path = "processors"
        if hooks is not None:
            slow_path = "hooks"
            errors |= hooks.errors
            hooks.end()
        done = time.perf_counter()
        times = StepTimes(prepared - started, computed - prepared, done - computed)
        return StepResult(
            tokens=tokens,
            errors=errors,
            prompt_scores=prompt_scores,
            embeddings=embeddings,
            times=times,
            slow_path=slow_path,
        )

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
            "block_size": self.storage.layout.block_size,
            "num_reused_tokens": self._rows.num_found(name),
            "num_cached_tokens": row.request.num_cached_tokens,
        }

    def _all_states(self, batch: FlatBatch, hooks: HookedStep | None) -> Tensor:
        """Return the states [num_tokens, width] of a whole step, its activations shown."""
        layers = self.storage.layers
        hidden: Tensor
        if hooks is None:
            hidden = self.decoder(batch, layers)
        else:
            probs = {"attn_probs": hooks.attn_probs, "probs_rows": hooks.probs_rows}
            hidden = self.decoder(batch, layers, hooks.tap, **probs)
            hooks.score_prompts(hidden, self.decoder.logits)
        return hidden

    def _logits(self, hidden: Tensor, hooks: HookedStep | None) -> Tensor:
        return self.decoder.logits(hidden, None if hooks is None else hooks.tap)

    def _scores_prompts(self, plan: StepPlan) -> bool:
        """Whether a request of this step wants log-probabilities that its prompt still lacks."""
        return any(_lacks_prompt_scores(self._requests[chunk.request_id]) for chunk in plan.chunks)

    def _score_prompts(self, plan: StepPlan, hidden: Tensor) -> dict[str, PromptScores]:
        """Return the log-probabilities that this step's prompt tokens give, where asked for.

        Args:
            plan: What was computed.
            hidden: [num_tokens, hidden], the plan's tokens in order.
        """
        scores = {}
        first_row = 0
        for chunk in plan.chunks:
            request = self._requests[chunk.request_id]
            known = request.prompt_logprobs
            if known is not None:
                # The row at position p scores the token at p + 1.
                start = max(chunk.start + 1, len(known))
                end = min(chunk.end + 1, request.num_prompt_tokens)
                if start < end:
                    offset = first_row - chunk.start - 1
                    wanted = hidden[start + offset : end + offset]
                    entries = self._score(request, start, wanted)
                    scores[request.id] = PromptScores(start, tuple(entries))
            first_row += chunk.num_tokens
        return scores

    def _score(self, request: Request, start: int, hidden: Tensor) -> list[dict[int, Logprob]]:
        """Score prompt tokens from ``start`` on by [rows, hidden], some rows at a time."""
        vocab_size = self.decoder.spec.vocab_size
        num_rows = min(_MAX_SCORED_ROWS, max(1, _MAX_SCORED_LOGITS // vocab_size))
        entries: list[dict[int, Logprob]] = []
        for part in hidden.split(num_rows):
            logits = self.decoder.logits(part)
            entries += self.sampler.score_prompt(logits, request, start + len(entries))
        return entries

    @torch.inference_mode()
    def restore(self, restoration: Restoration) -> None:
        """Become what a runner is that has computed all that was computed up to some step.

        Keys and values are computed again from the tokens; nothing is sampled. Penalties and
        grammars are told the tokens that were chosen.
        """
        self._flight = None
        for request_id in list(self._requests):
            self.release(request_id)
        for request in restoration.unfinished:
            self.prepare(request)
        # A sample that has ended may have computed, under hooks, what its siblings read.
        others = [
            r for r in restoration.requests.values() if r.hooks and r.id not in self._requests
        ]
        for request in others:
            self.hooks.start(request)
        for plan in restoration.steps:
            self._rows.apply(replace(plan, copies=()))  # whose effect the tables show already
            self._copy_blocks(plan)
            if plan.chunks:
                self._restore_step(plan, restoration.requests)
            for chunk in plan.chunks:
                self._rows.release(chunk.request_id)
        for request in others:
            self.hooks.forget(request.id)
        for request in restoration.unfinished:
            table = restoration.tables.get(request.id)
            if table is not None:
                self._rows.open(request.id, table, restoration.num_found[request.id])
            self.sampler.resume(request, is_running=table is not None)

    def _restore_step(self, plan: StepPlan, requests: Mapping[str, Request]) -> None:
        batch = self._rows.flat_batch(plan)
        pooled = self._pooler.plan(plan)
        wanted = torch.tensor([] if pooled is None else pooled.rows, dtype=torch.int64)
        wanted = wanted.to(self.decoder.device)
        owners = (requests.get(chunk.request_id) for chunk in plan.chunks)
        # Only what may change activations: whoever captures has seen these positions.
        is_hooked = any(owner is not None and owner.hooks for owner in owners)
        hooks = self.hooks.step(plan, batch) if is_hooked else None
        if hooks is not None:
            hidden = self._all_states(batch, hooks)[wanted]
            hooks.end()
        else:
            hidden = self.decoder(batch, self.storage.layers, rows=wanted)
        if pooled is not None:
            self._pooler.take(pooled, hidden)

    def _copy_blocks(self, plan: StepPlan) -> None:
        self.storage.copy_blocks(
            [copy.source_id for copy in plan.copies], [copy.target_id for copy in plan.copies]
        )

    def detached(
        self, config: EngineConfig, explains_all: Callable[[], bool] | None = None
    ) -> ModelRunner:
        """Return a runner of the same weights, with a KV cache and requests of its own.

        Args:
            config: What the cache and the rows are made for; it may differ from this runner's.
            explains_all: Whether its sampler is to explain every token.

        Raises:
            EngineError: the model was loaded for shorter sequences.
        """
        longest, wanted = self.decoder.spec.max_model_len, config.scheduler.max_model_len
        if wanted > longest:
            raise EngineError(
                f"the run was recorded with max_model_len={wanted}, and this model was loaded for "
                f"{longest} tokens: make it with LLM(max_model_len={wanted})"
            )
        layout = replace(self.storage.layout, block_size=config.cache.block_size)
        return ModelRunner(
            self.decoder,
            KVStorage(
                layout,
                config.cache.num_blocks,
                self.storage.device,
                num_spare_slots=0 if self._capture is None else config.scheduler.max_num_seqs,
            ),
            self.sampler.detached(explains_all),
            max_num_seqs=config.scheduler.max_num_seqs,
            max_model_len=wanted,
            token_text=self._token_text,
            capture=self._capture,
        )

    def release(self, request_id: str) -> None:
        """Forget a request that ended."""
        self._requests.pop(request_id, None)
        self._rows.release(request_id)
        self._pooler.forget(request_id)
        self.hooks.forget(request_id)
        self.sampler.forget(request_id)

    def close(self) -> None:
        """Drop the model and the cache."""
        self._requests.clear()
        self._flight = None
        if self.graphs is not None:
            self.graphs.clear()
        self._pooler.clear()
        self.hooks.clear()
        self.storage.free()
        self.sampler.close()
        del self.decoder


def _lacks_prompt_scores(request: Request) -> bool:
    known = request.prompt_logprobs
    return known is not None and len(known) < request.num_prompt_tokens


def _without(plan: StepPlan, covered: Collection[str]) -> StepPlan:
    """Return a plan of the other requests' chunks."""
    if not covered:
        return plan
    chunks = tuple([chunk for chunk in plan.chunks if chunk.request_id not in covered])
    return replace(plan, chunks=chunks, num_tokens=sum(chunk.num_tokens for chunk in chunks))


def _foreseen(plan: StepPlan) -> StepPlan:
    """Return the plan of what is foreseen."""
    num_tokens = sum(chunk.num_tokens for chunk in plan.foreseen)
    return StepPlan(plan.step + 1, plan.foreseen, num_tokens=num_tokens)


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
