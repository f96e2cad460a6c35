"""Feed a decoder through a paged cache, in chunks of any size, without an engine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.kernels import select_ops
from toolkit.models import Decoder, FlatBatch, TransformersDecoder, load_decoder

CPU = torch.device("cpu")
BLOCK_SIZE = 4


def load(model: object, **options: object) -> Decoder:
    ops = select_ops("reference", CPU)
    return load_decoder(str(model), device=CPU, ops=ops, **({"progress": False} | options))


class PagedRun:
    """A cache with scattered blocks, nan where nothing was written, and what it has computed."""

    def __init__(self, decoder: Decoder | TransformersDecoder, prompts: list[list[int]]) -> None:
        self.decoder = decoder
        self.prompts = prompts
        self.num_computed = [0] * len(prompts)
        self.logits: list[list[Tensor]] = [[] for _ in prompts]
        kv_shape = decoder.spec.kv_shape
        per_request = -(-max(map(len, prompts)) // BLOCK_SIZE)
        order = torch.randperm(
            len(prompts) * per_request, generator=torch.Generator().manual_seed(1)
        )
        self.tables = order.view(len(prompts), per_request).to(torch.int32)
        shape = (len(order), kv_shape.num_kv_heads, BLOCK_SIZE, kv_shape.head_dim)
        self.kv = [
            tuple(torch.full(shape, torch.nan, dtype=decoder.dtype) for _ in range(2))
            for _ in range(kv_shape.num_layers)
        ]

    def batch(self, num_tokens: list[int]) -> FlatBatch:
        """Plan the next ``num_tokens[i]`` tokens of each request i that has any."""
        requests = [r for r, count in enumerate(num_tokens) if count]
        spans = [
            range(self.num_computed[r], self.num_computed[r] + num_tokens[r]) for r in requests
        ]
        positions = torch.tensor([p for span in spans for p in span])
        owners = torch.tensor([r for r, span in zip(requests, spans, strict=True) for _ in span])
        blocks = self.tables[owners, positions // BLOCK_SIZE].long()
        counts = torch.tensor([0, *(len(span) for span in spans)])
        return FlatBatch(
            token_ids=torch.tensor(
                [self.prompts[r][p] for r, span in zip(requests, spans, strict=True) for p in span]
            ),
            positions=positions,
            slots=blocks * BLOCK_SIZE + positions % BLOCK_SIZE,
            block_tables=self.tables[requests],
            query_starts=counts.cumsum(0, dtype=torch.int32),
            context_lens=torch.tensor([span.stop for span in spans], dtype=torch.int32),
            logit_rows=torch.arange(len(positions)),
        )

    def step(self, num_tokens: list[int], tap: Callable | None = None, **options: object) -> None:
        """Compute them and keep the logits of every position."""
        batch = self.batch(num_tokens)
        hidden = self.decoder(batch, self.kv, tap, **options)
        rows = iter(
            self.decoder.logits(hidden[batch.logit_rows], tap).split([n for n in num_tokens if n])
        )
        for request, count in enumerate(num_tokens):
            if count:
                self.logits[request].append(next(rows))
                self.num_computed[request] += count

    def finish(self, chunk: int, tap: Callable | None = None, **options: object) -> list[Tensor]:
        """Compute all that is left, ``chunk`` tokens of each request a step."""
        while any(left := self.num_left()):
            self.step([min(chunk, count) for count in left], tap, **options)
        return [torch.cat(chunks) for chunks in self.logits]

    def num_left(self) -> list[int]:
        return [
            len(prompt) - done for prompt, done in zip(self.prompts, self.num_computed, strict=True)
        ]


def run(
    decoder: Decoder | TransformersDecoder,
    prompts: list[list[int]],
    *,
    chunk: int,
    **options: object,
) -> list[Tensor]:
    """Return the logits of every position of every prompt."""
    return PagedRun(decoder, prompts).finish(chunk, **options)


def assert_same_logits(actual: list[Tensor], expected: list[Tensor], atol: float) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)
