"""Run a plan on the real model: tensors in, sampled tokens out.

Request path 5/8: from engine.engine, to models.decoder and sampling.sampler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from toolkit.cache.storage import KVStorage
from toolkit.config import EngineConfig
from toolkit.engine.plan import (
    Restoration,
    StepPlan,
    StepResult,
)
from toolkit.errors import EngineError, InvalidConfig, InvalidParameter, InvalidRequest
from toolkit.kernels.transfers import current_device
from toolkit.models import Decoder, FlatBatch
from toolkit.request import Request
from toolkit.runtime.ahead import StepsAhead
from toolkit.runtime.cuda_graphs import Capture, DecodeGraphs, another
from toolkit.runtime.decode_buffers import DecodeBuffers
from toolkit.runtime.flight import Launcher
from toolkit.runtime.hooks import ActiveHooks
from toolkit.runtime.openmp import release_pool
from toolkit.runtime.pooling import Pooler
from toolkit.runtime.rows import RowTable
from toolkit.runtime.whole_steps import WholeSteps
from toolkit.sampling import Sampler, check_token_ids

if TYPE_CHECKING:  # it loads transformers' modelling code, which most models do without
    from toolkit.models import TransformersDecoder
    from toolkit.runtime.tensor_parallel import ShardedDecoder

__all__ = ["ModelRunner"]


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
            storage has ``max_num_seqs`` spare slots for them then. None for no graphs; a model
            that runs transformers' own code has none.
        on_close: Is called when the runner is closed: ends what the decoder owns.
    """

    def __init__(
        self,
        decoder: Decoder | TransformersDecoder | ShardedDecoder,
        storage: KVStorage,
        sampler: Sampler,
        *,
        max_num_seqs: int,
        max_model_len: int,
        token_text: Callable[[int], str] | None = None,
        capture: Capture | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        block_size = storage.layout.block_size
        max_blocks = -(-max_model_len // block_size)
        self.storage = storage
        self.sampler = sampler
        self.hooks = ActiveHooks(decoder, token_text)
        self._token_text = token_text
        self._on_close = on_close
        self._requests: dict[str, Request] = {}
        self._pooler = Pooler(decoder.width)
        self._rows = RowTable(max_num_seqs, max_blocks, block_size, decoder.device)
        self._capture = capture
        self.graphs: DecodeGraphs | None = None
        if capture is not None and isinstance(decoder, Decoder):
            buffers = DecodeBuffers(
                max_num_seqs=max_num_seqs,
                max_blocks=max_blocks,
                block_size=block_size,
                spare_slots=storage.spare_slots,
                device=decoder.device,
            )
            self.graphs = DecodeGraphs(
                self._forward, self._is_untouched, buffers=buffers, capture=capture
            )
        self._whole = WholeSteps(
            decoder,
            storage,
            self._rows,
            sampler=sampler,
            hooks=self.hooks,
            pooler=self._pooler,
            graphs=self.graphs,
            requests=self._requests,
        )
        self.ahead = StepsAhead(
            Launcher(self._forward, self._rows, sampler, self.graphs, decoder.device),
            self._whole,
            sampler=sampler,
            hooks=self.hooks,
            requests=self._requests,
        )
        release_pool()  # of the thread that loaded the model

    @property
    def decoder(self) -> Decoder | TransformersDecoder | ShardedDecoder:
        """The model; another one of its shape may take its place between two steps."""
        return self._whole.decoder

    @decoder.setter
    def decoder(self, decoder: Decoder | TransformersDecoder | ShardedDecoder) -> None:
        self._whole.use(decoder)
        self.ahead.forget()
        if self.graphs is not None:
            self.graphs.clear()

    @property
    def failure(self) -> EngineError | None:
        """Why no step can be computed any more; None while all of the model is there."""
        return self.decoder.failure

    def prepare(self, request: Request) -> None:
        """Refuse what this model does not have, begin to compile a grammar, remember the request.

        Raises:
            InvalidRequest: a prompt token or a parameter names a token the model does not have,
                nothing may be sampled, no answer can have the form that is asked for, an
                embedding would have more numbers than a state, or a hook does not fit the model.
            WorkerFailed: a process of the model is gone.
        """
        if self.failure is not None:
            raise self.failure
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
        for request_id in plan.preempted_ids:
            self.sampler.history.forget(request_id)
        for request_id in plan.admitted_ids:
            self.sampler.history.start(self._requests[request_id])
        with current_device(self.storage.device):
            return self._run(plan, started)

    def _run(self, plan: StepPlan, started: float) -> StepResult:
        self._rows.apply(plan)
        self._copy_blocks(plan)
        if plan.foreseen or self.ahead.is_flying:
            return self.ahead.run(plan, started)
        return self._whole.run(plan, started)

    def _is_untouched(self) -> bool:
        return isinstance(self.decoder, Decoder) and self.decoder.is_untouched

    def _forward(self, batch: FlatBatch) -> Tensor:
        """Return the logits of a batch's samples."""
        hidden = self.decoder(batch, self.storage.layers, rows=batch.logit_rows)
        return self.decoder.logits(hidden)

    @torch.inference_mode()
    def restore(self, restoration: Restoration) -> None:
        """Become what a runner is that has computed all that was computed up to some step.

        Keys and values are computed again from the tokens; nothing is sampled. Penalties and
        grammars are told the tokens that were chosen.
        """
        self.ahead.forget()
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
        with current_device(self.storage.device):
            for plan in restoration.steps:
                self._restore_step(plan, restoration.requests)
        for request in others:
            self.hooks.forget(request.id)
        for request in restoration.unfinished:
            table = restoration.tables.get(request.id)
            if table is not None:
                self._rows.open(request.id, table, restoration.num_found[request.id])
            self.sampler.resume(request, is_running=table is not None)

    def _restore_step(self, plan: StepPlan, requests: Mapping[str, Request]) -> None:
        self._rows.apply(replace(plan, copies=()))  # whose effect the tables show already
        self._copy_blocks(plan)
        if plan.chunks:
            self._restore_chunks(plan, requests)
        for chunk in plan.chunks:
            self._rows.release(chunk.request_id)

    def _restore_chunks(self, plan: StepPlan, requests: Mapping[str, Request]) -> None:
        batch = self._rows.flat_batch(plan)
        pooled = self._pooler.plan(plan)
        wanted = torch.tensor([] if pooled is None else pooled.rows, dtype=torch.int64)
        wanted = wanted.to(self.decoder.device)
        owners = (requests.get(chunk.request_id) for chunk in plan.chunks)
        # Only what may change activations: whoever captures has seen these positions.
        is_hooked = any(owner is not None and owner.hooks for owner in owners)
        hooks = self.hooks.step(plan, batch) if is_hooked else None
        if hooks is not None:
            hidden = self._whole.all_states(batch, hooks)[wanted]
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
        cache = config.cache
        return ModelRunner(
            self.decoder,
            self.storage.another(
                cache.num_blocks,
                block_size=cache.block_size,
                num_spare_slots=0 if self._capture is None else config.scheduler.max_num_seqs,
            ),
            self.sampler.detached(explains_all),
            max_num_seqs=config.scheduler.max_num_seqs,
            max_model_len=wanted,
            token_text=self._token_text,
            capture=another(self._capture),
        )

    def capture_graphs(self, *, progress: bool = True) -> None:
        """Capture the steps of single tokens now, for ``engine.between_steps``; see DecodeGraphs.

        Raises:
            InvalidConfig: this engine captures none.
        """
        if self.graphs is None:
            raise InvalidConfig(
                f"this engine captures no graphs (kernels={self.decoder.ops.name!r}, "
                f"{self.decoder.device}): they need a CUDA device, kernels='triton', a model of "
                "the toolkit's families and one process"
            )
        self.graphs.capture_all(progress=progress)

    def release(self, request_id: str) -> None:
        """Forget a request that ended."""
        if self._requests.pop(request_id, None) is not None and not self._requests:
            self.ahead.forget()  # else what is in flight would keep the last requests
        self._rows.release(request_id)
        self._pooler.forget(request_id)
        self.hooks.forget(request_id)
        self.sampler.forget(request_id)

    def close(self) -> None:
        """Drop the model and the cache."""
        self._requests.clear()
        self.ahead.forget()
        if self.graphs is not None:
            self.graphs.clear()
            self.graphs = None
        self._pooler.clear()
        self.hooks.clear()
        self.storage.free()
        self.sampler.close()
        del self._whole, self.ahead
        if self._on_close is not None:
            self._on_close()
