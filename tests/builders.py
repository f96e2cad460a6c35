"""Small engines without a model, for tests of scheduler, cache and loop.

``LedgerRunner`` is a complete runner whose "model" is a hash: the next token is a function of every
token of the context, read back through the block table from a ledger of slots. A wrong block, a
missing copy, a stale prefix or a skipped position changes the output, so comparing it with
``expected_output`` proves the whole bookkeeping.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from struct import pack
from typing import Any

from toolkit.clock import VirtualClock
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine, SampledToken, StepPlan, StepResult
from toolkit.engine.plan import UNKNOWN_TOKEN, Restoration
from toolkit.errors import InvalidRequest
from toolkit.request import Logprob, Request, SamplingParams

VOCAB_SIZE = 50


def next_token(context: list[int], sample_index: int = 0) -> int:
    """The hash "model": depends on every token, their order and the sample."""
    digest = blake2b(repr((context, sample_index)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % VOCAB_SIZE


def expected_output(prompt: list[int], num_tokens: int, sample_index: int = 0) -> list[int]:
    """What a request must get, computed without any engine."""
    context = list(prompt)
    for _ in range(num_tokens):
        context.append(next_token(context, sample_index))
    return context[len(prompt) :]


def expected_vector(prompt: list[int]) -> tuple[float, float]:
    """What a request that pools must get: a function of every token of its prompt."""
    return float(len(prompt)), float(next_token(prompt))


def next_logprobs(context: list[int]) -> list[float]:
    """What the hash "model" thinks of every token: like the next token, a function of them all."""
    draw = random.Random(blake2b(repr(context).encode()).digest())
    return [-8 * draw.random() for _ in range(VOCAB_SIZE)]


def most_likely(context: list[int], count: int) -> SampledToken:
    """The first of the most likely tokens, with the log-probabilities of ``count`` of them."""
    logprobs = next_logprobs(context)
    ranked = sorted(range(VOCAB_SIZE), key=lambda token_id: -logprobs[token_id])[:count]
    return SampledToken(ranked[0], {token_id: Logprob(logprobs[token_id]) for token_id in ranked})


class LedgerRunner:
    """Keeps (token, position) per cache slot and reads every context back through its table."""

    def __init__(self, block_size: int, clock: VirtualClock | None = None) -> None:
        self.block_size = block_size
        self.clock = clock
        self.slots: dict[tuple[int, int], tuple[int, int]] = {}
        self.tables: dict[str, list[int]] = {}
        self.requests: dict[str, Request] = {}
        self.plans: list[StepPlan] = []
        self.fail_steps: set[int] = set()
        self.fail_requests: set[str] = set()
        self.computed: dict[str, set[int]] = {}  # positions, of requests that pool

    def prepare(self, request: Request) -> None:
        if max(request.prompt_token_ids) >= VOCAB_SIZE:
            raise InvalidRequest("a token id is outside the vocabulary", param="prompt")
        self.requests[request.id] = request

    def run(self, plan: StepPlan) -> StepResult:
        self.plans.append(plan)
        if self.clock is not None:
            self.clock.advance(0.01)
        if plan.step in self.fail_steps:
            raise RuntimeError("the machine broke")
        for chunk in plan.chunks:
            table = [] if chunk.is_first else self.tables[chunk.request_id]
            self.tables[chunk.request_id] = [*table, *chunk.new_block_ids]
        for copy in plan.copies:
            table = self.tables[copy.request_id]
            table[table.index(copy.source_id)] = copy.target_id
        self._write(plan)
        tokens, errors, embeddings = {}, {}, {}
        for chunk in plan.chunks:
            if chunk.request_id in self.fail_requests:
                errors[chunk.request_id] = ValueError("a processor raised")
            elif self.requests[chunk.request_id].pooling is not None:
                computed = self.computed.setdefault(chunk.request_id, set())
                computed.update(range(chunk.start, chunk.end))
                if chunk.end == self.requests[chunk.request_id].num_prompt_tokens:
                    context = self._read(chunk.request_id, chunk.end)
                    embeddings[chunk.request_id] = pack("<2f", *expected_vector(context))
            elif chunk.samples:
                request = self.requests[chunk.request_id]
                context = self._read(chunk.request_id, chunk.end)
                if request.beam is not None:
                    sampled = most_likely(context, request.params.logprobs or 0)
                else:
                    sampled = SampledToken(next_token(context, request.sample_index))
                tokens[chunk.request_id] = (sampled,)
        self._write_in_vain(plan)
        return StepResult(tokens=tokens, errors=errors, embeddings=embeddings)

    def _write_in_vain(self, plan: StepPlan) -> None:
        """Spoil every slot that a runner may write to ahead of the next plan: nobody may mind."""
        for chunk in plan.foreseen:
            for position in range(chunk.start, chunk.end):
                self.slots[self._slot(chunk.request_id, position)] = (UNKNOWN_TOKEN, position)

    def restore(self, restoration: Restoration) -> None:
        self.slots.clear()  # what nobody computes again is missed where it is read
        self.tables.clear()
        self.computed.clear()
        self.requests = {request.id: request for request in restoration.unfinished}
        for plan in restoration.steps:
            for chunk in plan.chunks:
                assert chunk.is_first
                assert not chunk.samples
                self.tables[chunk.request_id] = list(chunk.new_block_ids)
            self._write(plan)
            for chunk in plan.chunks:
                self._read(chunk.request_id, chunk.end)
                pooled = self.computed.setdefault(chunk.request_id, set())
                pooled.update(range(chunk.start, chunk.end))
        self.tables = {name: list(table) for name, table in restoration.tables.items()}

    def detached(self, config: EngineConfig, explains_all: Any = None) -> LedgerRunner:
        return LedgerRunner(config.cache.block_size)

    def release(self, request_id: str) -> None:
        self.requests.pop(request_id, None)
        self.tables.pop(request_id, None)

    def _write(self, plan: StepPlan) -> None:
        written: set[int] = set()
        for copy in plan.copies:
            assert copy.source_id not in written, "all copies are read before any is written"
            written.add(copy.target_id)
            for offset in range(self.block_size):
                if (copy.source_id, offset) in self.slots:
                    self.slots[copy.target_id, offset] = self.slots[copy.source_id, offset]
        for chunk in plan.chunks:
            for position, token_id in zip(
                range(chunk.start, chunk.end), chunk.token_ids, strict=True
            ):
                self.slots[self._slot(chunk.request_id, position)] = (token_id, position)

    def close(self) -> None:
        self.slots.clear()

    def _slot(self, request_id: str, position: int) -> tuple[int, int]:
        table = self.tables[request_id]
        return table[position // self.block_size], position % self.block_size

    def _read(self, request_id: str, end: int) -> list[int]:
        context = []
        for position in range(end):
            token_id, written_at = self.slots[self._slot(request_id, position)]
            assert written_at == position, f"{request_id} reads another request's position"
            context.append(token_id)
        return context


def make_engine(
    *,
    num_blocks: int = 16,
    block_size: int = 4,
    max_model_len: int | None = None,
    max_num_seqs: int = 8,
    max_num_batched_tokens: int = 16,
    policy: Any = "fcfs",
    enable_prefix_caching: bool = True,
    asynchronous: bool = False,
    **kwargs: Any,
) -> Engine:
    """An engine over a LedgerRunner on a virtual clock, checked at every step."""
    clock = VirtualClock()
    config = EngineConfig(
        cache=CacheConfig(
            num_blocks=num_blocks,
            block_size=block_size,
            enable_prefix_caching=enable_prefix_caching,
        ),
        scheduler=SchedulerConfig(
            max_model_len=max_model_len or num_blocks * block_size,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            asynchronous=asynchronous,
        ),
        policy=policy,
        check_every_step=True,
    )
    return Engine(LedgerRunner(block_size, clock), config, clock=clock, **kwargs)


def params(max_tokens: int = 4, **kwargs: Any) -> SamplingParams:
    """Sampling parameters for the hash model; the temperature only permits n > 1."""
    return SamplingParams(max_tokens=max_tokens, ignore_eos=True, **kwargs)
