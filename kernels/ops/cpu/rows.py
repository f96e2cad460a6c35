"""Norms, rotation, gated activations and cache writes in C++, with reference.py's signatures.

Each row's result depends on that row alone. Dtypes and mixtures of dtypes that the C++ does not
know go to reference.py. Weights must be contiguous, as parameters are.
Request path 7/8: from models.layers, into the blocks of cache.storage.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Literal

import torch
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.cpu.library import DTYPES, Library, pointer
from toolkit.kernels.cpu.linears import GATES

__all__ = ["RowOps"]

# The structs of arguments in src/team.h.
_pack_norm = Struct("10q d 2q").pack
_pack_add_norm = Struct("8q d 2q").pack
_pack_gate = Struct("6q").pack
_pack_heads = Struct("21q d 3q").pack

# A weight has its rows' dtype, or float32.
_PAIRS = {
    (rows, weight): (code, DTYPES[weight])
    for rows, code in DTYPES.items()
    for weight in {rows, torch.float32}
}


class RowOps:
    """The row ops of a compiled library, as callables for ``Ops``."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Normalise the last dimension: reference.rms_norm."""
        dtypes = _dtypes(x, weight)
        if dtypes is None:
            return reference.rms_norm(x, weight, eps)
        return _norm(self._library.rms_norm, x, (weight, None), eps, dtypes)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        """Normalise the last dimension: reference.layer_norm."""
        dtypes = _dtypes(x, weight, bias)
        if dtypes is None:
            return reference.layer_norm(x, weight, bias, eps)
        return _norm(self._library.layer_norm, x, (weight, bias), eps, dtypes)

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Add x to the residual stream and normalise: reference.add_rms_norm."""
        dtypes = _dtypes(x, weight)
        if dtypes is None or not _are_rows(x, residual):
            total = residual + x
            return self.rms_norm(total, weight, eps), total
        return _add_norm(self._library.add_rms_norm, x, residual, (weight, None), eps, dtypes)

    def add_layer_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Add x to the residual stream and normalise: reference.add_layer_norm."""
        dtypes = _dtypes(x, weight, bias)
        if dtypes is None or not _are_rows(x, residual):
            total = residual + x
            return self.layer_norm(total, weight, bias, eps), total
        return _add_norm(self._library.add_layer_norm, x, residual, (weight, bias), eps, dtypes)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up: reference.silu_mul, but rounded once."""
        if gate_up.dtype not in DTYPES:
            return reference.silu_mul(gate_up)
        return _gate(self._library, gate_up, "silu")

    def gelu_mul(self, gate_up: Tensor, approximate: Literal["none", "tanh"]) -> Tensor:
        """Return gelu(gate) * up: reference.gelu_mul, but rounded once."""
        if gate_up.dtype not in DTYPES:
            return reference.gelu_mul(gate_up, approximate)
        return _gate(self._library, gate_up, "gelu_tanh" if approximate == "tanh" else "gelu")

    def rotary(
        self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Rotate pairs of dimensions of each head: reference.rotary."""
        if query.dtype not in DTYPES or key.dtype is not query.dtype:
            return reference.rotary(query, key, cos, sin, interleaved=interleaved)
        turned, keys = (_empty(x) for x in (query, key))
        # To the C++, keys is a cache with blocks of one slot, and token t has slot t.
        self._move_heads(query, key, None, turned, keys, cos=cos, sin=sin, interleaved=interleaved)
        return turned, keys

    def write_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        """Store keys and values at their slots: reference.write_kv."""
        if _share_a_dtype(key, value, key_cache):
            self._move_heads(None, key, value, None, key_cache, value_cache, slots)
        else:
            reference.write_kv(key, value, key_cache, value_cache, slots)

    def rotary_write_kv(
        self,
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
        """Prepare heads for attention in one pass: reference.rotary_write_kv."""
        how = {"cos": cos, "sin": sin, "interleaved": interleaved, "head_norms": head_norms}
        if not _share_a_dtype(query, key, value, key_cache) or (
            head_norms is not None and _dtypes(query, *head_norms[:2]) is None
        ):
            return reference.rotary_write_kv(
                query, key, value, key_cache=key_cache, value_cache=value_cache, slots=slots, **how
            )
        if cos is None and head_norms is None:
            self._move_heads(None, key, value, None, key_cache, value_cache, slots)
            return query
        out = _empty(query)
        self._move_heads(query, key, value, out, key_cache, value_cache, slots, **how)
        return out

    def _move_heads(
        self,
        query: Tensor | None,
        key: Tensor,
        value: Tensor | None,
        out: Tensor | None,
        key_cache: Tensor,
        value_cache: Tensor | None = None,
        slots: Tensor | None = None,
        *,
        cos: Tensor | None = None,
        sin: Tensor | None = None,
        interleaved: bool = False,
        head_norms: tuple[Tensor, Tensor, float] | None = None,
    ) -> None:
        """Call the C++, whose arguments are described there; None is its null."""
        key, key_stride = _with_whole_heads(key)
        num_tokens, num_kv_heads, head_dim = key.shape
        dtype = weight_dtype = DTYPES[key.dtype]
        queries = values = turn = norms = (0, 0)
        num_heads = query_stride = value_stride = half = 0
        if query is not None and out is not None:
            query, query_stride = _with_whole_heads(query)
            queries, num_heads = (query.data_ptr(), out.data_ptr()), query.shape[1]
        if value is not None and value_cache is not None:
            value, value_stride = _with_whole_heads(value)
            values = value.data_ptr(), value_cache.data_ptr()
        if cos is not None and sin is not None:
            cos, sin = cos.contiguous(), sin.contiguous()
            turn, half = (cos.data_ptr(), sin.data_ptr()), cos.shape[1]
        if head_norms is not None:
            norms = head_norms[0].data_ptr(), head_norms[1].data_ptr()
            weight_dtype = DTYPES[head_norms[0].dtype]
        self._library.rotary_write_kv(
            _pack_heads(
                *queries,
                *(key.data_ptr(), key_cache.data_ptr()),
                *values,
                *(0, 1) if slots is None else (slots.data_ptr(), key_cache.shape[2]),
                *turn,
                *(0, *norms),  # a row of cos and sin for each token
                *(num_tokens, num_heads, num_kv_heads, head_dim, half),
                *(query_stride, key_stride, value_stride),
                *(0.0 if head_norms is None else head_norms[2], interleaved, dtype, weight_dtype),
            )
        )


def _norm(
    function: Callable[[bytes], None],
    x: Tensor,
    scale_shift: tuple[Tensor, Tensor | None],
    eps: float,
    dtypes: tuple[int, int],
) -> Tensor:
    out = _empty(x)
    weight, bias = scale_shift
    rows, layout = _layout(x, weight)
    pointers = rows.data_ptr(), weight.data_ptr(), pointer(bias), out.data_ptr()
    function(_pack_norm(*pointers, *layout, eps, *dtypes))
    return out


def _add_norm(
    function: Callable[[bytes], None],
    x: Tensor,
    residual: Tensor,
    scale_shift: tuple[Tensor, Tensor | None],
    eps: float,
    dtypes: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    out, total = torch.empty_like(x), torch.empty_like(x)
    weight, bias = scale_shift
    pointers = x.data_ptr(), residual.data_ptr(), weight.data_ptr(), pointer(bias)
    results = out.data_ptr(), total.data_ptr()
    function(_pack_add_norm(*pointers, *results, *x.shape, eps, *dtypes))
    return out, total


def _empty(x: Tensor) -> Tensor:
    """Return a contiguous tensor of x's shape and dtype."""
    return torch.empty_like(x) if x.is_contiguous() else x.new_empty(x.shape)


def _dtypes(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[int, int] | None:
    """Return the codes of x's and the weights' dtypes; None for a pair that the C++ lacks."""
    if bias is not None and bias.dtype is not weight.dtype:
        return None
    return _PAIRS.get((x.dtype, weight.dtype))


def _layout(x: Tensor, weight: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """View x as [outer, inner, size] with a contiguous last dimension, copying if need be.

    Also returns the lengths, the strides of the first two, and the weight's from one inner row to
    the next.
    """
    size = x.shape[-1]
    has_one_weight = weight.dim() == 1
    if has_one_weight and x.is_contiguous():
        return x, (x.numel() // (size or 1), 1, size, size, 0, 0)
    if x.dim() != 3 or x.stride(2) != 1:
        num_inner = 1 if has_one_weight else weight.shape[0]
        x = x.contiguous().view(x.numel() // (num_inner * size or 1), num_inner, size)
    return x, (*x.shape, *x.stride()[:2], 0 if has_one_weight else size)


def _are_rows(x: Tensor, residual: Tensor) -> bool:
    """Whether both are [rows, size], contiguous, of one dtype."""
    return (
        x.dim() == 2
        and x.shape == residual.shape
        and x.dtype is residual.dtype
        and x.is_contiguous()
        and residual.is_contiguous()
    )


def _gate(library: Library, gate_up: Tensor, activation: str) -> Tensor:
    """Call an activation over rows [..., 2 * width]."""
    shape = list(gate_up.shape)
    shape[-1] //= 2
    out = gate_up.new_empty(shape)
    if gate_up.dim() != 2 or gate_up.stride(1) != 1:
        gate_up = gate_up.reshape(-1, 2 * shape[-1]).contiguous()
    pointers = gate_up.data_ptr(), out.data_ptr()
    layout = gate_up.shape[0], shape[-1], gate_up.stride(0)
    library.gate_mul(_pack_gate(*pointers, *layout, DTYPES[gate_up.dtype]), GATES[activation])
    return out


def _share_a_dtype(x: Tensor, *others: Tensor) -> bool:
    """Whether all are of one dtype, and the C++ has it."""
    dtype = x.dtype
    for other in others:
        if other.dtype is not dtype:
            return False
    return dtype in DTYPES


def _with_whole_heads(x: Tensor) -> tuple[Tensor, int]:
    """Return [num_tokens, heads, head_dim] with each token's heads contiguous, and its stride."""
    token_stride, head_stride, stride = x.stride()
    if stride != 1 or head_stride != x.shape[2]:
        x = x.contiguous()
        token_stride = x.stride(0)
    return x, token_stride
