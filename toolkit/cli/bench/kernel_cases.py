"""Typical calls of every op: one layer of a 0.6B model (Qwen3's shapes) and a vocabulary of 32k.

Each case is a number of tokens; its arguments are random, seeded, and in the dtype asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["CASES", "Case"]

HIDDEN, INTERMEDIATE, VOCAB = 1024, 3072, 32_000
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE = 16, 8, 128, 16
QKV = (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM
_EPS = 1e-6
_CONTEXT = 512  # of each request that decodes
_EXPERTS = 8


@dataclass(frozen=True, slots=True)
class Case:
    """A call to time: ``arguments(draw)`` makes what the op is called with.

    ``cold`` is the place of an argument that a model reads from memory in every step, its weight:
    each call gets another copy.
    """

    op: str
    label: str
    arguments: Callable[[Draw], tuple[Any, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    cold: int | None = None


class Draw:
    """Random tensors of one dtype on the default device, the same for every implementation."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return standard normal numbers."""
        values = torch.randn(shape, generator=self._generator, device="cpu")
        return values.to(torch.get_default_device(), dtype or self.dtype)

    def qkv(self, num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value as the model has them: views of one matrix."""
        heads = self.normal(num_tokens, QKV).unflatten(-1, (-1, HEAD_DIM))
        return heads.split((NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS), dim=1)

    def angles(self, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Return cos and sin [num_tokens, head_dim / 2]."""
        angles = self.normal(num_tokens, HEAD_DIM // 2, dtype=torch.float32)
        return angles.cos(), angles.sin()

    def caches(self, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Return key and value caches with room for so many tokens."""
        shape = (-(-num_tokens // BLOCK_SIZE), NUM_KV_HEADS, BLOCK_SIZE, HEAD_DIM)
        return self.normal(*shape), self.normal(*shape)


def _linear(num_tokens: int, num_in: int, num_out: int) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        return draw.normal(num_tokens, num_in), draw.normal(num_out, num_in)

    return Case("linear", f"{num_tokens} x {num_in} -> {num_out}", arguments, cold=1)


def _grouped(num_tokens: int) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        x = draw.normal(num_tokens, HIDDEN)
        starts = torch.linspace(0, num_tokens, _EXPERTS + 1).long()
        return x, draw.normal(_EXPERTS, INTERMEDIATE, HIDDEN), starts

    return Case("grouped_linear", f"{num_tokens} rows, {_EXPERTS} experts", arguments)


def _norm(op: str, num_tokens: int) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        streams = [draw.normal(num_tokens, HIDDEN) for _ in range(2 if "add" in op else 1)]
        weights = [draw.normal(HIDDEN) for _ in range(2 if "layer" in op else 1)]
        return *streams, *weights, _EPS

    return Case(op, f"{num_tokens} x {HIDDEN}", arguments)


def _activation(op: str, num_tokens: int, *more: str) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        return draw.normal(num_tokens, 2 * INTERMEDIATE), *more

    return Case(op, f"{num_tokens} x {INTERMEDIATE}", arguments)


def _rotary(num_tokens: int) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        query, key, _ = draw.qkv(num_tokens)
        return query, key, *draw.angles(num_tokens)

    return Case("rotary", f"{num_tokens} tokens", arguments)


def _write(num_tokens: int) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        _, key, value = draw.qkv(num_tokens)
        return key, value, *draw.caches(num_tokens), torch.arange(num_tokens)

    return Case("write_kv", f"{num_tokens} tokens", arguments)


def _rotary_write(num_tokens: int) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        caches = draw.caches(num_tokens)
        return *draw.qkv(num_tokens), *draw.angles(num_tokens), *caches, torch.arange(num_tokens)

    return Case("rotary_write_kv", f"{num_tokens} tokens", arguments)


def _attention(num_requests: int, num_queries: int, context: int) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        num_blocks = -(-context // BLOCK_SIZE)
        tables = torch.arange(num_requests * num_blocks, dtype=torch.int32)
        query, _, _ = draw.qkv(num_requests * num_queries)
        return (
            query,
            *draw.caches(num_requests * num_blocks * BLOCK_SIZE),
            tables.view(num_requests, num_blocks),
            torch.arange(num_requests + 1, dtype=torch.int32) * num_queries,
            torch.full((num_requests,), context, dtype=torch.int32),
        )

    label = f"{num_requests} x {num_queries}, context {context}"
    return Case("paged_attention", label, arguments, {"scale": HEAD_DIM**-0.5})


def _sampling(op: str, num_rows: int) -> Case:
    def arguments(draw: Draw) -> tuple[Any, ...]:
        logits = draw.normal(num_rows, VOCAB, dtype=torch.float32)
        return (logits, torch.arange(num_rows)) if op == "race" else (logits,)

    return Case(op, f"{num_rows} x {VOCAB}", arguments)


_TOKENS = (1, 32, 512)
_MATRICES = ((HIDDEN, QKV), (HIDDEN, 2 * INTERMEDIATE), (INTERMEDIATE, HIDDEN), (HIDDEN, VOCAB))
_NORMS = ("rms_norm", "add_rms_norm", "layer_norm", "add_layer_norm")

CASES = (
    *(_linear(tokens, *matrix) for matrix in _MATRICES for tokens in _TOKENS),
    *(_grouped(tokens) for tokens in _TOKENS),
    *(_norm(op, tokens) for op in _NORMS for tokens in _TOKENS),
    *(_activation("silu_mul", tokens) for tokens in _TOKENS),
    *(_activation("gelu_mul", tokens, "tanh") for tokens in _TOKENS),
    *(_rotary(tokens) for tokens in _TOKENS),
    *(_write(tokens) for tokens in _TOKENS),
    *(_rotary_write(tokens) for tokens in _TOKENS),
    *(_attention(requests, 1, _CONTEXT) for requests in (1, 32)),
    *(_attention(1, queries, queries) for queries in (128, 2048)),
    *(_sampling(op, rows) for op in ("race", "argmax") for rows in (1, 64)),
)
