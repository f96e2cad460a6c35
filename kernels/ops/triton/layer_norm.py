"""Centre and scale rows, alone or after the residual sum.

Request path 7/8: from models.parts.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.rounding import narrow
from toolkit.kernels.triton.rows import DTYPES, row_tile, strided_rows

__all__ = ["add_layer_norm", "layer_norm"]


@triton.jit
def _layer_norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    total_ptr,
    num_rows,
    num_inner,
    size,
    outer_stride,
    inner_stride,
    weight_stride,
    eps,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = weight * (x - mean) / sqrt(var + eps) + bias, of x + residual if there is one."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    mask = (rows < num_rows) & (columns < size)
    inner = rows % num_inner
    offsets = rows // num_inner * outer_stride + inner * inner_stride + columns
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        x += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        total = narrow(x, total_ptr.dtype.element_ty)
        tl.store(total_ptr + rows * size + columns, total, mask=mask)
        x = total.to(tl.float32)
    mean = tl.sum(x, axis=1) / size
    centred = tl.where(mask, x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1) / size + eps)
    weights = inner * weight_stride + columns
    out = centred * scale[:, None]
    out *= tl.load(weight_ptr + weights, mask=mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        out += tl.load(bias_ptr + weights, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + rows * size + columns, narrow(out, out_ptr.dtype.element_ty), mask=mask)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise the last dimension: reference.layer_norm."""
    if x.dtype not in DTYPES:
        return reference.layer_norm(x, weight, bias, eps)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() > 0:
        _launch(x, None, (weight, bias), out, None, eps)
    return out


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Add x to the residual stream and normalise, in one pass: reference.add_layer_norm."""
    dtype = torch.promote_types(x.dtype, residual.dtype)
    if dtype not in DTYPES or x.shape != residual.shape:
        return reference.add_layer_norm(x, residual, weight, bias, eps)
    total = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    out = torch.empty_like(total)
    if x.numel() > 0:
        _launch(x.contiguous(), residual.contiguous(), (weight, bias), out, total, eps)
    return out, total


def _launch(
    x: Tensor,
    residual: Tensor | None,
    scale_shift: tuple[Tensor, Tensor | None],
    out: Tensor,
    total: Tensor | None,
    eps: float,
) -> None:
    size = x.shape[-1]
    weight, bias = scale_shift
    x, *layout = strided_rows(x, weight)
    num_rows, num_inner, outer_stride, inner_stride, weight_stride = layout
    tile = row_tile(size)
    _layer_norm_kernel[(triton.cdiv(num_rows, tile.rows),)](
        x,
        residual,
        weight,
        bias,
        out,
        total,
        num_rows,
        num_inner,
        size,
        outer_stride,
        inner_stride,
        weight_stride,
        eps,
        HAS_BIAS=bias is not None,
        HAS_RESIDUAL=residual is not None,
        ROWS=tile.rows,
        BLOCK=tile.block,
        num_warps=tile.num_warps,
    )
