"""Calls of every op in which each of its options matters, small enough to be made at a start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Call", "calls"]

_BLOCK_SIZE, _NUM_BLOCKS = 16, 24
_NUM_TOKENS = 19  # a chunk of 18 and a single token
_WIDTH = 160
_VOCAB_SIZE = 1_000


class Call(NamedTuple):
    """An op's name, and with what it is called."""

    op: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = {}


def calls(device: torch.device) -> Iterator[Call]:
    """Yield calls of every op, the same ones each time."""
    draw = _Draw(device)
    yield from _row_calls(draw, torch.bfloat16)
    yield from _row_calls(draw, torch.float16)
    # Only here the two forms of gelu are further apart than what rounding may do.
    for approximate in ("none", "tanh"):
        yield Call("gelu_mul", (draw.normal(3, _WIDTH, dtype=torch.float32), approximate))
    for dtype, head_dim in ((torch.bfloat16, 64), (torch.bfloat16, 128), (torch.float16, 128)):
        yield from _head_calls(draw, dtype, head_dim)
    yield from _form_calls(draw)
    yield from _sampling_calls(draw)


class _Draw:
    """Makes tensors on a device, the same ones whatever it is."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return normally distributed numbers."""
        return torch.randn(shape, generator=self._generator).to(self.device, dtype)

    def whole(self, values: list[int], dtype: torch.dtype = torch.int64) -> Tensor:
        """Return these whole numbers."""
        return torch.tensor(values, dtype=dtype, device=self.device)

    def parts(self, values: list[float]) -> Tensor:
        """Return these numbers in float32."""
        return torch.tensor(values, device=self.device)


def _row_calls(draw: _Draw, dtype: torch.dtype) -> Iterator[Call]:
    wide = draw.normal(_NUM_TOKENS, _WIDTH, dtype=dtype)
    wide[0] *= 1e-3  # a row in which eps counts
    other = draw.normal(_NUM_TOKENS, _WIDTH, dtype=dtype)
    other[0] *= 1e-3
    weight, bias = (draw.normal(_WIDTH, dtype=dtype) for _ in range(2))
    for own in (weight, weight.float()):  # which rounds once less
        yield Call("rms_norm", (wide, own, 1e-6))
        yield Call("add_rms_norm", (wide, other, own, 1e-6))
    for own_bias in (bias, None):
        yield Call("layer_norm", (wide, weight, own_bias, 1e-6))
        yield Call("add_layer_norm", (wide, other, weight, own_bias, 1e-6))
    yield Call("silu_mul", (wide,))
    for approximate in ("none", "tanh"):
        yield Call("gelu_mul", (wide, approximate))
    matrices, biases = draw.normal(3, 96, _WIDTH, dtype=dtype), draw.normal(3, 96, dtype=dtype)
    starts = draw.whole([0, 7, 7, _NUM_TOKENS])  # the second group is empty
    yield Call("linear", (wide, matrices[0]))
    yield Call("linear", (wide, matrices[0], 8 * biases[0]))
    yield Call("grouped_linear", (wide, matrices, starts))
    yield Call("grouped_linear", (wide, matrices, starts, 8 * biases))


def _heads(draw: _Draw, dtype: torch.dtype, head_dim: int) -> tuple[Tensor, ...]:
    """Return queries, keys and values of the tokens, and two caches."""
    rows = [draw.normal(_NUM_TOKENS, heads, head_dim, dtype=dtype) for heads in (8, 2, 2)]
    shape = (_NUM_BLOCKS, 2, _BLOCK_SIZE, head_dim)
    return (*rows, *(draw.normal(*shape, dtype=dtype) for _ in range(2)))


def _head_calls(draw: _Draw, dtype: torch.dtype, head_dim: int) -> Iterator[Call]:
    query, key, value, *caches = _heads(draw, dtype, head_dim)
    norms = *(draw.normal(head_dim, dtype=dtype) for _ in range(2)), 1e-6
    slots = draw.whole([5 * i % (_NUM_BLOCKS * _BLOCK_SIZE) for i in range(_NUM_TOKENS)])
    yield Call("rms_norm", (query, norms[0], 1e-6))
    yield Call("write_kv", (key, value, *caches, slots))
    yield _attention(draw, query, *caches)
    turn = _angles(draw, head_dim)
    yield Call("rotary", (query, key, *turn))
    where = *caches, slots
    yield Call("rotary_write_kv", (query, key, value, *turn, *where), {"head_norms": norms})
    if head_dim == 64:  # the other forms once: compiling takes time
        half, pairs = _angles(draw, head_dim // 2), {"interleaved": True}
        for angles in (turn, half):
            yield Call("rotary", (query, key, *angles), pairs)
            yield Call("rotary_write_kv", (query, key, value, *angles, *where), pairs)
        yield Call("rotary_write_kv", (query, key, value, *half, *where))
        yield Call("rotary_write_kv", (query, key, value, None, None, *where))


def _angles(draw: _Draw, rotary_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines by which heads are turned."""
    angles = draw.normal(_NUM_TOKENS, rotary_dim // 2, dtype=torch.float32)
    return angles.cos(), angles.sin()


def _attention(draw: _Draw, query: Tensor, *caches: Tensor, **form: Any) -> Call:
    tables = draw.whole(list(range(_NUM_BLOCKS)), torch.int32).view(2, -1).flip(1).contiguous()
    starts = draw.whole([0, _NUM_TOKENS - 1, _NUM_TOKENS], torch.int32)
    contexts = draw.whole([50, 190], torch.int32)
    options = {"scale": query.shape[-1] ** -0.5, **form}
    return Call("paged_attention", (query, *caches, tables, starts, contexts), options)


def _form_calls(draw: _Draw) -> Iterator[Call]:
    """Yield attention in the forms that some families of models have."""
    query, _, _, *caches = _heads(draw, torch.bfloat16, 64)
    slopes = 2.0 ** -draw.parts([1, 2, 3, 4, 5, 6, 7, 8])
    yield _attention(draw, query, *caches, window=40)
    yield _attention(draw, 4 * query, *caches, softcap=2.0)
    yield _attention(draw, query, *caches, alibi_slopes=slopes)
    yield _attention(draw, query, *caches, sinks=4 + draw.normal(8, dtype=torch.bfloat16))


def _sampling_calls(draw: _Draw) -> Iterator[Call]:
    logits = 4 * draw.normal(6, _VOCAB_SIZE, dtype=torch.float32)
    logits[1, 700] = logits[1, 300] = 99.0  # a tie, which the lowest wins
    spoilt = logits.clone()
    spoilt[2, 500], spoilt[3, 10], spoilt[4] = torch.nan, torch.inf, -torch.inf
    yield Call("argmax", (spoilt,))
    logits[5, 3:] = -torch.inf
    yield Call("race", (logits, draw.whole([1, -2, 3 << 40, 4, 5, 6])))
    limits = 4 * draw.normal(5, _VOCAB_SIZE, dtype=torch.float32)
    top_k = draw.whole([40, *[_VOCAB_SIZE] * 2, 50, _VOCAB_SIZE])
    top_p, min_p = draw.parts([1, 0.8, 1, 0.9, 1]), draw.parts([0, 0, 0.1, 0.02, 0])
    for own_top_p in (top_p, None):
        for own_min_p in (min_p, None):
            options = {"top_k": top_k, "max_top_k": _VOCAB_SIZE}
            yield Call(
                "cut_unlikely", (limits,), options | {"top_p": own_top_p, "min_p": own_min_p}
            )
