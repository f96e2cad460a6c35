"""Compute every op in plain PyTorch: the oracle for the Triton and C++ versions.

Same names and signatures in every implementation; any floating dtype, any device. In shapes,
num_tokens counts the rows of the flat batch, in which the tokens of all requests lie one after the
other. A cache is [num_blocks, num_kv_heads, block_size, head_dim] and contiguous; the slot of a
token is block_id * block_size + offset.
Request path 7/8: from models.layers, into the blocks of cache.storage.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.kernels.contracts import StackParts
from toolkit.kernels.reference_attention import attention_probs, mix_values, paged_attention
from toolkit.kernels.reference_sampling import argmax, cut_unlikely, race

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "argmax",
    "attention_probs",
    "cut_unlikely",
    "fuse_layers",
    "gelu_mul",
    "grouped_linear",
    "layer_norm",
    "linear",
    "mix_values",
    "pack_linear",
    "paged_attention",
    "race",
    "rms_norm",
    "rotary",
    "rotary_write_kv",
    "silu_mul",
    "write_kv",
]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows x [num_tokens, in] by weight [out, in] and add bias [out]."""
    return functional.linear(x, weight, bias)


def pack_linear(
    weight: Tensor,
    bias: Tensor | None,
    *,
    quantization: str | None = None,
    gate: str | None = None,
) -> None:
    """Return a map that is quicker than ``linear`` for many calls; here there is none.

    ``gate`` names the activation of a matrix [gate, up] ("silu", "gelu" or "gelu_tanh"), which the
    map may compute as well: its ``is_gated`` says whether it does.

    Raises ValueError for ``quantization``: the implementation for CPUs has it.
    """
    if quantization is not None:
        raise ValueError(f"quantization={quantization!r} needs the compiled kernels ('cpu')")


def fuse_layers(parts: StackParts) -> None:
    """Return whole layers that are quicker in one call than op by op; here there are none."""


def grouped_linear(x: Tensor, weight: Tensor, starts: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply each group of rows by its own matrix: the experts of a mixture.

    x [rows, in], sorted by group; weight [groups, out, in]; bias [groups, out]; group g has the
    rows starts[g] to starts[g + 1], starts [groups + 1] int64. Returns [rows, out].
    """
    out = x.new_empty(x.shape[0], weight.shape[1])
    bounds = starts.tolist()
    for group, (start, end) in enumerate(pairwise(bounds)):
        if start < end:
            own_bias = None if bias is None else bias[group]
            out[start:end] = functional.linear(x[start:end], weight[group], own_bias)
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the last dimension: weight * x / sqrt(mean(x^2) + eps).

    Computed in float32. A weight in x's dtype multiplies what was rounded to that dtype, as in
    transformers' LlamaRMSNorm; a float32 weight multiplies before the only rounding, as in
    Gemma2RMSNorm. Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (weight * normed.to(weight.dtype)).to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add x to the residual stream; return (rms_norm of the sum, the sum)."""
    total = residual + x
    return rms_norm(total, weight, eps), total


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise the last dimension: weight * (x - mean) / sqrt(var + eps) + bias.

    weight and bias have the shape of x's last dimension, or of its last two (a weight for each
    head). Ba et al. 2016, arXiv:1607.06450.
    """
    if weight.dim() == 1:
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
    normed = weight * functional.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return (normed if bias is None else normed + bias).to(x.dtype)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Add x to the residual stream; return (layer_norm of the sum, the sum)."""
    total = residual + x
    return layer_norm(total, weight, bias, eps), total


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up for gate_up [num_tokens, 2 * width], gate first. arXiv:2002.05202."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def gelu_mul(gate_up: Tensor, approximate: Literal["none", "tanh"]) -> Tensor:
    """Return gelu(gate) * up for gate_up [num_tokens, 2 * width], gate first. arXiv:2002.05202."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.gelu(gate, approximate=approximate) * up


def rotary(
    query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False
) -> tuple[Tensor, Tensor]:
    """Rotate pairs of dimensions of each head by its token's angles; return new tensors.

    query [num_tokens, num_heads, head_dim], key [num_tokens, num_kv_heads, head_dim];
    cos, sin [num_tokens, rotary_dim / 2] float32. Pair i is (i, i + rotary_dim / 2), or
    (2i, 2i + 1) when interleaved. Dimensions past rotary_dim pass through. Computed in float32 and
    rounded once (transformers rounds cos and sin to the model's dtype first, so bfloat16 results
    differ in the last bit). Su et al. 2021, arXiv:2104.09864.
    """
    rotate = _rotate_interleaved if interleaved else _rotate
    return rotate(query, cos, sin), rotate(key, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # [num_tokens, 1, rotary_dim / 2]
    first, second, rest = x.float().tensor_split((half, 2 * half), dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin, rest)
    return torch.cat(turned, dim=-1).to(x.dtype)


def _rotate_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotary_dim = 2 * cos.shape[-1]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # [num_tokens, 1, rotary_dim / 2]
    first, second = x[..., :rotary_dim].float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.cat((turned.flatten(-2).to(x.dtype), x[..., rotary_dim:]), dim=-1)


def write_kv(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
) -> None:
    """Store keys and values [num_tokens, num_kv_heads, head_dim] at slots [num_tokens] int64.

    In place; every slot must exist, and no slot may appear twice.
    """
    block_size = key_cache.shape[2]
    blocks, offsets = slots // block_size, slots % block_size
    key_cache[blocks, :, offsets] = key
    value_cache[blocks, :, offsets] = value


def rotary_write_kv(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    key_cache: Tensor,
    value_cache: Tensor,
    slots: Tensor,
    *,
    interleaved: bool = False,
    head_norms: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """Prepare heads for attention: rms_norm, rotary, write_kv. Returns the query.

    ``head_norms`` are the weights [head_dim] of query and key heads, and eps; None leaves the norm
    out. cos and sin None leave the rotation out. The rest is as in the three ops; the query that
    nothing changes is returned itself.
    """
    if head_norms is not None:
        query_weight, key_weight, eps = head_norms
        query, key = rms_norm(query, query_weight, eps), rms_norm(key, key_weight, eps)
    if cos is not None and sin is not None:
        query, key = rotary(query, key, cos, sin, interleaved=interleaved)
    write_kv(key, value, key_cache, value_cache, slots)
    return query
