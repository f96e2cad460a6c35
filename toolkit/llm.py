"""LLM: the place where the parts meet.

Request path 1/8: a prompt becomes a request of engine.engine, and its tokens come back as text.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeAlias, TypeVar, cast

import torch
from tqdm.auto import tqdm

from toolkit.beam_search_params import BeamSearchParams
from toolkit.cache.storage import KVStorage
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.demo import WEIGHTS
from toolkit.demo import texts as demo_texts
from toolkit.engine import Engine
from toolkit.engine.completion import Completion
from toolkit.engine.streams import AsyncStream, Stream
from toolkit.errors import InvalidConfig, InvalidRequest, RequestFailed
from toolkit.kernels import Ops, select_ops
from toolkit.models import (
    Decoder,
    DecoderSpec,
    ModelSource,
    TransformersSpec,
    load_generation_defaults,
    open_model,
)
from toolkit.record import Record
from toolkit.registry import Holding, register
from toolkit.request import (
    EmbeddingRequestOutput,
    OutputPiece,
    PoolingParams,
    Request,
    RequestOutput,
    SamplingParams,
)
from toolkit.runtime import Explainer, ModelRunner
from toolkit.runtime.cuda_graphs import CudaCapture
from toolkit.runtime.fingerprint import fingerprint
from toolkit.runtime.hooks import ActiveHooks
from toolkit.runtime.memory import MemoryPlan, plan_memory
from toolkit.runtime.tensor_parallel import (
    ShardedDecoder,
    part_of,
    refuse_sharding,
    start_sharded,
)
from toolkit.sampling import Explanation, GrammarCompiler, GrammarRows, Sampler, Vocabulary
from toolkit.structured_outputs import response_format_params
from toolkit.text import Tokenizer
from toolkit.threads import notice_if_late

if TYPE_CHECKING:  # it loads transformers' modelling code, which most models do without
    from toolkit.models import TransformersDecoder

__all__ = ["LLM", "demo_texts"]

logger = logging.getLogger(__name__)

Prompt: TypeAlias = "str | Sequence[int]"
Messages: TypeAlias = Sequence[Mapping[str, Any]]
AnyParams: TypeAlias = SamplingParams | BeamSearchParams | PoolingParams
AnyDecoder: TypeAlias = "Decoder | TransformersDecoder | ShardedDecoder"
P = TypeVar("P", SamplingParams, PoolingParams)

DEMO_NAME = "toolkit-demo"
# Tokens of one step: enough to keep the arithmetic units busy, few enough that a prompt does not
# hold up everybody's next token for long.
_DEFAULT_STEP_TOKENS = {"cpu": 512, "cuda": 2048}
# generation_config.json and SamplingParams agree on these names.
_GENERATION_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
# A run shorter than this needs no progress bar.
_PROGRESS_DELAY_S = 2.0
_PROGRESS_INTERVAL_S = 0.5


class LLM:
    """A model with its engine: generate, chat, stream, embed; ``llm.engine`` is the engine itself.

    Args:
        model: A local folder or hub id; the bundled demo model (a toy) when left out.
        dtype: "auto" is the checkpoint's, or float32 where the machine cannot compute in it.
        device: "auto" is the first GPU, or the CPU.
        block_size: Tokens per block of the KV cache.
        num_kv_blocks: Size of the KV cache in blocks; or give kv_cache_memory_gb; by default it
            holds max_num_seqs sequences of max_model_len tokens, up to 4 GiB.
        kv_cache_memory_gb: Size of the KV cache in GiB.
        max_model_len: Longest sequence, prompt and output; the model's own limit by default.
        max_num_seqs: Requests that run at once.
        max_num_batched_tokens: Tokens computed in one step; long prompts are cut into chunks.
        policy: A scheduling policy: a name (toolkit.engine.POLICIES has eight), a function or an
            object (toolkit.engine.policy says what it may do).
        enable_prefix_caching: Whether requests share the blocks of a common beginning.
        seed: Seeds the requests that bring no seed of their own.
        chat_template: A Jinja template in place of the model's.
        quantization: "int8" or "int4" quantises the linear maps' weights at load, the head's too.
        batch_invariant: A request gets the same logits bit for bit whatever its batch, its chunks
            and its cache hits; costs some speed. On a CPU by the C++ ops, on a GPU by Triton's, and
            there for the model families alone, not for models in transformers' own code.
        kernels: "auto", "reference" (plain PyTorch), "cpu" (C++) or "triton": on a GPU, or on a
            CPU under Triton's interpreter if TRITON_INTERPRET=1 is set.
        num_threads: CPU threads of this process, other engines' too; torch's choice by default.
        tensor_parallel: Processes that share the model, this one included: each has a part of
            every layer and of the KV cache. On GPUs each takes one, on a CPU its share of the
            threads. ``toolkit.runtime.tensor_parallel`` says more.
        tokenizer: A folder, hub id or transformers tokenizer in place of the model's; False for
            none: prompts are token ids then, and no text is made.

    Raises:
        ModelError: the model cannot be loaded.
        InvalidConfig: a setting is wrong, or the memory does not suffice.
        WorkerFailed: another process of ``tensor_parallel`` could not start; it says why.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        dtype: str | torch.dtype = "auto",
        device: str = "auto",
        block_size: int = 16,
        num_kv_blocks: int | None = None,
        kv_cache_memory_gb: float | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int | None = None,
        policy: Any = "fcfs",
        enable_prefix_caching: bool = True,
        seed: int = 0,
        chat_template: str | None = None,
        quantization: str | None = None,
        batch_invariant: bool = False,
        kernels: str = "auto",
        num_threads: int | None = None,
        tensor_parallel: int = 1,
        tokenizer: Any = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if num_threads is not None:
            _set_num_threads(num_threads)
        notice_if_late()
        self.model_name = model or DEMO_NAME
        path = model or str(WEIGHTS)
        self.device = _device(device)
        refuse_sharding(
            tensor_parallel,
            self.device,
            quantization=quantization,
            batch_invariant=batch_invariant,
        )
        ops = _ops(kernels, self.device, quantization, batch_invariant)
        self._kernels = ops.name
        source = open_model(
            path,
            dtype=dtype,
            device=self.device,
            ops=ops,
            quantization=quantization,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
        if batch_invariant:
            _refuse_variant(source.spec, ops)
        part = source if tensor_parallel == 1 else part_of(source, tensor_parallel)
        self._plan = plan_memory(
            part.spec,
            weight_bytes=part.weight_bytes,
            num_processes=tensor_parallel,
            dtype=source.dtype,
            device=self.device,
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            num_kv_blocks=num_kv_blocks,
            kv_cache_memory_gb=kv_cache_memory_gb,
        )
        engine_config = EngineConfig(
            cache=CacheConfig(
                num_blocks=self._plan.num_blocks,
                block_size=block_size,
                enable_prefix_caching=enable_prefix_caching,
            ),
            scheduler=SchedulerConfig(
                max_model_len=self._plan.max_model_len,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens
                or _DEFAULT_STEP_TOKENS.get(self.device.type, 512),
                asynchronous=_never_waits(source, ops, self.device, self._plan.num_processes),
            ),
            policy=policy,
            seed=seed,
        )
        generation = load_generation_defaults(path, revision)
        self.default_params = _default_params(generation)
        eos_token_ids = _eos_token_ids(generation, source.config)
        self._tokenizer = _tokenizer(
            path if tokenizer is None else tokenizer,
            revision=revision,
            trust_remote_code=trust_remote_code,
            eos_token_ids=eos_token_ids,
            chat_template=chat_template,
        )
        if self._tokenizer is not None and len(self._tokenizer) > source.spec.vocab_size:
            logger.warning(
                "the tokenizer has %d tokens, the model %d: text with others is refused",
                len(self._tokenizer),
                source.spec.vocab_size,
            )
        description = {
            "model": self.model_name,
            "device": str(self.device),
            "dtype": str(source.dtype).removeprefix("torch."),
            "kernels": ops.name,
            "batch_invariant": batch_invariant,
            "quantization": quantization,
            "tensor_parallel": tensor_parallel,
        }
        decoder = self._load(source, progress=model is not None)
        try:
            self._assemble(decoder, engine_config, eos_token_ids, description)
        except BaseException:
            if isinstance(decoder, ShardedDecoder):
                decoder.close()  # a traceback may keep it for long
            raise
        register(self)

    def _load(self, source: ModelSource, *, progress: bool) -> AnyDecoder:
        """Load the weights, in as many processes as are planned."""
        size, max_model_len = self._plan.num_processes, self._plan.max_model_len
        if size == 1:
            return source.load(max_model_len=max_model_len, progress=progress)
        return start_sharded(source, size, max_model_len=max_model_len, progress=progress)

    def _assemble(
        self,
        decoder: AnyDecoder,
        engine_config: EngineConfig,
        eos_token_ids: Sequence[int],
        description: dict[str, Any],
    ) -> None:
        """Put the parts together around the model."""
        layout, num_blocks = self._plan.layout, self._plan.num_blocks
        capture = CudaCapture(self.device) if engine_config.scheduler.asynchronous else None
        if isinstance(decoder, ShardedDecoder):
            description["model_fingerprint"] = decoder.fingerprint
            storage: KVStorage = decoder.storage(layout, num_blocks)
        else:
            description["model_fingerprint"] = fingerprint(decoder)
            num_spare_slots = 0 if capture is None else engine_config.scheduler.max_num_seqs
            storage = KVStorage(layout, num_blocks, self.device, num_spare_slots=num_spare_slots)
        token_text = self._tokenizer.token_text if self._tokenizer is not None else None
        record = Record(token_text=token_text, describe=description.copy)
        sampler = Sampler(
            decoder.spec.vocab_size,
            self.device,
            decode_token=token_text,
            ops=decoder.ops,
            grammars=_grammars(self._tokenizer, decoder.spec.vocab_size),
            explains_all=lambda: record.level == "explain",
        )
        runner = ModelRunner(
            decoder,
            storage,
            sampler,
            max_num_seqs=engine_config.scheduler.max_num_seqs,
            max_model_len=self._plan.max_model_len,
            token_text=token_text,
            capture=capture,
            on_close=decoder.close if isinstance(decoder, ShardedDecoder) else None,
        )
        self.engine = Engine(
            runner,
            engine_config,
            text=self._tokenizer,
            recorder=record,
            sampler=sampler,
            hooks=runner.hooks,
            eos_token_ids=eos_token_ids,
        )
        self._hooks = runner.hooks
        self._explainer = Explainer(self.engine, runner)
        sampler.explainer = self._explainer

    @property
    def max_model_len(self) -> int:
        """Longest sequence, prompt and output, in tokens."""
        return self._plan.max_model_len

    @property
    def hooks(self) -> ActiveHooks:
        """What is hooked now; ``llm.hooks.capture(...)`` keeps activations."""
        return self._hooks

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; raises InvalidConfig for an LLM made with ``tokenizer=False``."""
        if self._tokenizer is None:
            raise InvalidConfig("this LLM was made with tokenizer=False: use token ids")
        return self._tokenizer

    def memory_plan(self) -> MemoryPlan:
        """Return what the model and its KV cache take, and why; the cache is taken at first use."""
        return self._plan

    # ---- generate

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int = 0,
        tags: dict[str, Any] | None = None,
        hooks: Any = (),
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """Complete one prompt or a list of them; outputs come in the order of the prompts.

        Args:
            prompts: Text or token ids, or a list of such.
            params: One for all, or one per prompt; the checkpoint's defaults when None.
            priority: Of all of them; smaller is more urgent under the ``priority`` policy.
            tags: What policies, processors and tables shall see.
            hooks: Change activations (``toolkit.Hook``, ``Steer``, ``Patch``) of all prompts; or
                one list of hooks per prompt.
            progress: Whether to show a bar; by default for several prompts once it takes long.

        Raises:
            InvalidRequest: a prompt or a parameter is wrong; the others of the call are aborted.
            KeyboardInterrupt: the prompts are aborted, and the LLM can be used again.

        A request that fails while it runs has ``.error`` set in its output; the others go on.
        """
        batch = _as_list(prompts)
        params = params if params is not None else self.sampling_params()
        each = _params_for(len(batch), params, SamplingParams)
        requests = self._run(batch, each, priority, tags, hooks, progress)
        return [request.output for request in requests]

    def beam_search(
        self,
        prompts: Prompt | Sequence[Prompt],
        beam_width: int = 4,
        *,
        max_tokens: int | None = 16,
        length_penalty: float = 1.0,
        early_stopping: bool | Literal["never"] = False,
        ignore_eos: bool = False,
        stop_token_ids: Sequence[int] = (),
        priority: int = 0,
        tags: dict[str, Any] | None = None,
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """Search for the most likely continuations of one prompt or a list of them.

        Each output has ``beam_width`` samples, best first, with ``beam_score`` and
        ``cumulative_logprob``; its ``block_sharing`` tells how much KV memory the beams shared.
        The tokens are those of transformers' beam search. For a conversation, give the tokens of
        ``llm.tokenizer.encode_chat(messages)``. See ``BeamSearchParams`` for what the
        parameters mean, ``generate`` for the rest.
        """
        params = BeamSearchParams(
            beam_width=beam_width,
            max_tokens=max_tokens,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            ignore_eos=ignore_eos,
            stop_token_ids=stop_token_ids,
        )
        batch = _as_list(prompts)
        requests = self._run(batch, [params] * len(batch), priority, tags, (), progress)
        return [request.output for request in requests]

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: PoolingParams | Sequence[PoolingParams] | None = None,
        *,
        priority: int = 0,
        tags: dict[str, Any] | None = None,
        hooks: Any = (),
        progress: bool | None = None,
    ) -> list[EmbeddingRequestOutput]:
        """Turn one prompt or a list of them into vectors, in the order of the prompts.

        They are made of the hidden states after the final norm: ``PoolingParams`` says how, by
        default the last token's, scaled to length 1. ``outputs.embedding`` is the list of numbers.
        Prompts share steps with one another and with whatever else the engine runs. A prompt may
        fill the whole context. See ``generate`` for the rest.
        """
        batch = _as_list(prompts)
        params = params if params is not None else PoolingParams()
        each = _params_for(len(batch), params, PoolingParams)
        requests = self._run(batch, each, priority, tags, hooks, progress)
        return [request.embedding_output for request in requests]

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> list[RequestOutput]:
        """Answer one conversation or a list of them; see ``generate`` for the rest.

        Without ``params`` an answer may take what is left of the context. ``response_format`` is
        OpenAI's, such as ``{"type": "json_object"}``, and holds for all conversations.
        """
        if isinstance(messages, (str, Mapping)):
            raise InvalidRequest(
                'a conversation is a list of messages: [{"role": "user", "content": "Hello!"}]',
                param="messages",
            )
        conversations = cast(
            "list[Messages]", [messages] if _is_conversation(messages) else list(messages)
        )
        prompts = [
            self.tokenizer.encode_chat(
                conversation,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                template_kwargs=chat_template_kwargs,
            )
            for conversation in conversations
        ]
        params = params if params is not None else self.sampling_params(max_tokens=None)
        if response_format is not None:
            params = _with_format(params, response_format)
        return self.generate(prompts, params, progress=progress, **options)

    def stream(
        self,
        prompt: Prompt | Messages,
        params: SamplingParams | None = None,
        **options: Any,
    ) -> Iterator[OutputPiece]:
        """Yield pieces of the answer as they are made; leaving the loop aborts the request.

        ``prompt`` is text, token ids or a conversation; ``options`` are those of ``engine.add``.
        """
        token_ids, params = self._single(prompt, params)
        sink = Stream(params.n, is_alive=lambda: self.engine.is_started)
        with self.engine.driving():
            request = self.engine.add(token_ids, params, sink=sink, **options)
            try:
                yield from _raising(sink, request)
            finally:
                if not request.output.finished:
                    self.engine.abort(request.id)

    async def astream(
        self,
        prompt: Prompt | Messages,
        params: SamplingParams | None = None,
        **options: Any,
    ) -> AsyncIterator[OutputPiece]:
        """Do the same for ``async for``, in any event loop."""
        token_ids, params = self._single(prompt, params)
        sink = AsyncStream(params.n, is_alive=lambda: self.engine.is_started)
        with self.engine.driving():
            request = self.engine.add(token_ids, params, sink=sink, **options)
            try:
                async for piece in sink:
                    if piece.error is not None:
                        raise RequestFailed(f"{request.id} failed") from piece.error
                    yield piece
            finally:
                if not request.output.finished:
                    self.engine.abort(request.id)

    def sampling_params(self, **changes: Any) -> SamplingParams:
        """Return the checkpoint's default parameters with some of them changed."""
        return SamplingParams(**{**self.default_params, **changes})

    # ---- the rest

    def explain(
        self,
        output: RequestOutput | Request | str,
        token: int,
        *,
        sample: int | None = None,
        recompute: bool = False,
    ) -> Explanation:
        """Say why a token of an answer came out: the model, each step of the sampler, the draw.

        What was recorded is told (``record.level = "explain"``, or ``sampler.explain_if``); what
        was not is computed once more from the tokens before it, and ``.source`` says so.

        Args:
            output: An answer of ``generate``, a request, or its id.
            token: Its place in the output, from 0; -1 is the last.
            sample: Which sample, where ``n`` is more than 1; the first, or the one whose request or
                id is given, by default.
            recompute: Compute it once more even if it was recorded.

        Raises:
            InvalidRequest: there is no such token, or it came from a beam search.
            EngineClosed: it was not recorded, and the model is gone.
        """
        return self._explainer.explain_output(output, token, sample=sample, recompute=recompute)

    def reset_prefix_cache(self) -> int:
        """Forget reusable blocks; return how many were evicted."""
        return self.engine.reset_prefix_cache()

    def close(self) -> None:
        """Abort what runs and give the memory back; idempotent."""
        self.engine.close()

    def holding(self) -> Holding | None:
        """Say what is held, for ``toolkit.live()``; None once it is closed."""
        if self.engine.is_closed:
            return None
        scheduler = self.engine.scheduler
        count = self._plan.num_processes
        return Holding(
            kind="LLM",
            name=self.model_name,
            state=f"{scheduler.num_running} running, {scheduler.num_waiting} waiting",
            where=self._where,
            weight_bytes=count * self._plan.weight_bytes,
            kv_bytes=count * self._plan.kv_bytes,
        )

    @property
    def _where(self) -> str:
        count = self._plan.num_processes
        return str(self.device) if count == 1 else f"{self.device}, {count} processes"

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        dtype = str(self._plan.layout.dtype).removeprefix("torch.")
        where = f"{dtype} on {self._where}, kernels={self._kernels!r}"
        return f"LLM({self.model_name!r}, {where}, {self.engine!r})"

    # ---- inside

    def _run(
        self,
        prompts: Sequence[Prompt],
        each: Sequence[AnyParams],
        priority: int,
        tags: dict[str, Any] | None,
        hooks: Any,
        progress: bool | None,
    ) -> list[Request]:
        """Put prompts in line and wait until all have ended; what breaks that aborts them."""
        with self.engine.driving(), Completion(self.engine) as completion:
            requests: list[Request] = []
            try:
                own_hooks = _hooks_for(len(prompts), hooks)
                for prompt, its_params, own in zip(prompts, each, own_hooks, strict=True):
                    requests.append(
                        self.engine.add(prompt, its_params, priority=priority, tags=tags, hooks=own)
                    )
                self._wait(completion, requests, progress)
            except BaseException as error:
                by = "interrupt" if isinstance(error, KeyboardInterrupt) else "user"
                for request in requests:
                    self.engine.abort(request.id, by=by)
                raise
        for request in requests:
            if (cause := request.output.error) is not None:
                logger.warning("%s failed: %r", request.id, cause)
        return requests

    def _wait(
        self, completion: Completion, requests: Sequence[Request], progress: bool | None
    ) -> None:
        """Wait for all samples, with a bar that moves between two endings."""
        samples = [sample for request in requests for sample in request.samples]
        shown = len(samples) > 1 if progress is None else progress
        # A bar of its own delay would still show in a notebook, so it is made when it is due.
        due_s = time.monotonic() + (_PROGRESS_DELAY_S if progress is None else 0.0)
        bar: tqdm[Any] | None = None
        num_ended = 0
        try:
            for num_more in completion.wait_for(samples, interval_s=_PROGRESS_INTERVAL_S):
                num_ended += num_more
                if not shown or time.monotonic() < due_s:
                    continue
                bar = bar or _progress_bar(samples)
                bar.update(num_ended - bar.n)
                bar.set_postfix_str(f"{sum(map(_num_made, samples))} tokens")
        finally:
            if bar is not None:
                bar.close()

    def _single(
        self, prompt: Prompt | Messages, params: SamplingParams | None
    ) -> tuple[Prompt, SamplingParams]:
        _refuse_others_params(params)
        if _is_conversation(prompt):
            token_ids = self.tokenizer.encode_chat(cast("Messages", prompt))
            return token_ids, params or self.sampling_params(max_tokens=None)
        return cast("Prompt", prompt), params or self.sampling_params()


def _raising(pieces: Iterator[OutputPiece] | Stream, request: Request) -> Iterator[OutputPiece]:
    for piece in pieces:
        if piece.error is not None:
            raise RequestFailed(f"{request.id} failed") from piece.error
        yield piece


def _with_format(
    params: SamplingParams | Sequence[SamplingParams], response_format: Mapping[str, Any]
) -> SamplingParams | Sequence[SamplingParams]:
    """Return parameters that also ask for a form of the answer."""
    form = response_format_params(response_format)
    if form is None:
        return params
    each = [params] if isinstance(params, SamplingParams) else list(params)
    if any(one.structured_outputs is not None for one in each):
        raise InvalidRequest(
            "give response_format or structured_outputs, not both", param="response_format"
        )
    formed = [replace(one, structured_outputs=form) for one in each]
    return formed[0] if isinstance(params, SamplingParams) else formed


def _grammars(tokenizer: Tokenizer | None, vocab_size: int) -> GrammarRows | None:
    """Return what follows grammars, if there are texts of tokens to follow them in."""
    if tokenizer is None:
        return None
    vocabulary = Vocabulary(
        vocab_size,
        tokenizer.eos_token_ids,
        tokenizer.token_bytes.special_ids,
        tokenizer.token_bytes,
    )
    return GrammarRows(GrammarCompiler(vocabulary))


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, (Mapping, bytes)) or not hasattr(prompts, "__len__"):
        raise InvalidRequest(
            f"a prompt is text or a list of token ids, not {prompts!r:.80}", param="prompt"
        )
    if isinstance(prompts, str) or (len(prompts) and isinstance(prompts[0], SupportsIndex)):
        return [cast("Prompt", prompts)]
    return list(cast("Sequence[Prompt]", prompts))


def _params_for(count: int, params: P | Sequence[P], kind: type[P]) -> Sequence[P]:
    """Return each prompt's parameters, of which one may have been given for all."""
    if kind is SamplingParams:
        _refuse_others_params(params)
    if isinstance(params, kind):
        return [params] * count
    if (
        not isinstance(params, Sequence)
        or isinstance(params, str)
        or not all(isinstance(one, kind) for one in params)
    ):
        raise InvalidRequest(
            f"params must be {kind.__name__}(...), or one for each prompt, not {params!r:.80}",
            param="params",
        )
    if len(params) != count:
        raise InvalidRequest(f"{count} prompts but {len(params)} params", param="params")
    return params


def _hooks_for(num_prompts: int, hooks: Any) -> list[Any]:
    """Return each prompt's hooks: its own list of a list of lists, else all of them."""
    has_own = isinstance(hooks, Sequence) and any(isinstance(own, Sequence) for own in hooks)
    if not has_own:
        return [hooks] * num_prompts
    if len(hooks) != num_prompts:
        raise InvalidRequest(
            f"{len(hooks)} lists of hooks for {num_prompts} prompts; give one per prompt, or hooks "
            "for all of them",
            param="hooks",
        )
    return list(hooks)


def _refuse_others_params(params: object) -> None:
    """Refuse what other methods of LLM are for."""
    if isinstance(params, BeamSearchParams):
        raise InvalidRequest(
            "BeamSearchParams belong to engine.add; use llm.beam_search(prompts, beam_width=...)",
            param="params",
        )
    if isinstance(params, PoolingParams):
        raise InvalidRequest(
            "PoolingParams make no text; use llm.embed(prompts, params)", param="params"
        )


def _progress_bar(samples: Sequence[Request]) -> tqdm[Any]:
    # With miniters=0 no thread of tqdm's own draws it, which in a notebook none may.
    if samples[0].pooling is not None:
        return tqdm(total=len(samples), desc="Embedding", unit="prompt", miniters=0)
    return tqdm(total=len(samples), desc="Generating", unit="sample", miniters=0)


def _num_made(sample: Request) -> int:
    """Return what a progress bar counts: tokens sampled, or those whose states are known."""
    return sample.num_output_tokens if sample.pooling is None else sample.num_computed_tokens


def _is_conversation(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return is_list and len(value) > 0 and isinstance(value[0], Mapping)


def _set_num_threads(count: int) -> None:
    if count < 1:
        raise InvalidConfig(f"num_threads={count} is less than 1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cores is not None and count > cores:
        logger.warning("num_threads=%d on %d cores: threads will wait for each other", count, cores)
    torch.set_num_threads(count)


def _refuse_variant(spec: DecoderSpec | TransformersSpec, ops: Ops) -> None:
    """Raise InvalidConfig for a model whose bits on a GPU follow the batch."""
    if ops.name == "triton" and not isinstance(spec, DecoderSpec):
        raise InvalidConfig(
            f"batch_invariant=True: {spec.family} runs in transformers' own code, whose bits on a "
            "GPU depend on the batch; take a model of the toolkit's families, or device='cpu'"
        )


def _ops(
    kernels: str, device: torch.device, quantization: str | None, batch_invariant: bool
) -> Ops:
    """Choose the kernels; raise InvalidConfig for what this machine does not have."""
    if quantization not in (None, "int8", "int4"):
        raise InvalidConfig(f"quantization must be None, 'int8' or 'int4', not {quantization!r}")
    if quantization is not None and kernels == "auto" and device.type == "cpu":
        kernels = "cpu"  # compiled now if need be: only these have it
    try:
        ops = select_ops(kernels, device, batch_invariant=batch_invariant)
    except ValueError as error:
        raise InvalidConfig(f"kernels={kernels!r}: {error}") from error
    if quantization is not None and ops.name != "cpu":
        raise InvalidConfig(f"quantization={quantization!r} needs kernels='cpu', not {ops.name!r}")
    return ops


def _device(name: str) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidConfig(f"device={name!r} is not one that torch knows: {error}") from error
    if device.type == "cuda" and not has_cuda:
        raise InvalidConfig(
            f"device={name!r}: torch sees no CUDA device here (`toolkit doctor` says more); "
            "use device='cpu' or 'auto'"
        )
    return device


def _never_waits(source: ModelSource, ops: Ops, device: torch.device, num_processes: int) -> bool:
    """Whether steps can be launched ahead and captured: where nothing looks at a tensor meanwhile.

    A CPU computes while Python waits for it; the reference's ops look at tensors, transformers' own
    code may, and several processes wait for one another.
    """
    is_ours = isinstance(source.spec, DecoderSpec) and num_processes == 1
    return device.type == "cuda" and ops.name == "triton" and is_ours


def _default_params(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Translate generation_config.json into sampling parameters, as vLLM does."""
    params = {
        name: generation[name] for name in _GENERATION_FIELDS if generation.get(name) is not None
    }
    if generation.get("do_sample") is False:
        params["temperature"] = 0.0
    return params


def _eos_token_ids(generation: Mapping[str, Any], config: Any) -> list[int]:
    """Return the end-of-sequence tokens: the generation config's, else the model config's."""
    found = generation.get("eos_token_id", getattr(config, "eos_token_id", None))
    if found is None:
        return []
    return list(found) if isinstance(found, Sequence) else [found]


def _tokenizer(
    tokenizer: Any, *, revision: str | None, trust_remote_code: bool, **kwargs: Any
) -> Tokenizer | None:
    if tokenizer is False:
        return None
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if isinstance(tokenizer, str):
        return Tokenizer.load(
            tokenizer, revision=revision, trust_remote_code=trust_remote_code, **kwargs
        )
    return Tokenizer(tokenizer, **kwargs)
