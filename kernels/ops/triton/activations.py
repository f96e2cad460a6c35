"""Multiply the gate's activation with what passes the gate, and round once.

Request path 7/8: from models.mlp.
"""

from typing import Literal

import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.rounding import narrow
from toolkit.kernels.triton.rows import DTYPES

__all__ = ["gelu_mul", "silu_mul"]

_BLOCK = 1024
_NUM_WARPS = 4


@triton.jit
def _sigmoid(x):
    decay = tl.exp(-tl.abs(x))  # of the negative side, so that nothing overflows
    return tl.where(x >= 0, 1.0, decay) / (1.0 + decay)


@triton.jit
def _gate_mul_kernel(
    gate_up_ptr, out_ptr, width, row_stride, GATE: tl.constexpr, BLOCK: tl.constexpr
):
    """out = act(gate) * up; the tanh form of gelu is gate * sigmoid, as tanh is 2 sigmoid - 1."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < width
    gate_ptrs = gate_up_ptr + row * row_stride + columns
    gate = tl.load(gate_ptrs, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_ptrs + width, mask=mask, other=0.0).to(tl.float32)
    if GATE == "silu":
        gate *= _sigmoid(gate)
    elif GATE == "gelu_tanh":
        # 2 sqrt(2 / pi) (x + 0.044715 x^3)
        gate *= _sigmoid(1.5957691216057308 * gate * (1.0 + 0.044715 * gate * gate))
    else:
        gate *= 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
    tl.store(
        out_ptr + row * width + columns, narrow(gate * up, out_ptr.dtype.element_ty), mask=mask
    )


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up: reference.silu_mul, but rounded once."""
    if gate_up.dtype not in DTYPES:
        return reference.silu_mul(gate_up)
    return _gate_mul(gate_up, "silu")


def gelu_mul(gate_up: Tensor, approximate: Literal["none", "tanh"]) -> Tensor:
    """Return gelu(gate) * up: reference.gelu_mul, but rounded once."""
    if gate_up.dtype not in DTYPES:
        return reference.gelu_mul(gate_up, approximate)
    return _gate_mul(gate_up, "gelu_tanh" if approximate == "tanh" else "gelu")


def _gate_mul(gate_up: Tensor, gate: str) -> Tensor:
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty(*gate_up.shape[:-1], width)
    if out.numel() == 0:
        return out
    if gate_up.dim() != 2 or gate_up.stride(1) != 1:
        gate_up = gate_up.reshape(-1, 2 * width).contiguous()
    _gate_mul_kernel[(len(gate_up), triton.cdiv(width, _BLOCK))](
        gate_up, out, width, gate_up.stride(0), GATE=gate, BLOCK=_BLOCK, num_warps=_NUM_WARPS
    )
    return out
