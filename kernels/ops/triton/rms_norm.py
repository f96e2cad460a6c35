"""Normalise rows by their root mean square, alone or after the residual sum.

Request path 7/8: from models.parts.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.rounding import narrow
from toolkit.kernels.triton.rows import DTYPES, row_tile, strided_rows

__all__ = ["add_rms_norm", "rms_norm"]


@triton.jit
def _rms_norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    out_ptr,
    total_ptr,
    num_rows,
    num_inner,
    size,
    outer_stride,
    inner_stride,
    weight_stride,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = weight * x / sqrt(mean(x^2) + eps), of x + residual if there is one."""
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
    scale = tl.rsqrt(tl.sum(x * x, axis=1) / size + eps)
    weight = tl.load(weight_ptr + inner * weight_stride + columns, mask=mask, other=0.0)
    # The normed row is rounded to the weight's dtype, and so is the product.
    normed = narrow(x * scale[:, None], weight.dtype).to(tl.float32)
    out = narrow(normed * weight.to(tl.float32), weight.dtype).to(tl.float32)
    tl.store(out_ptr + rows * size + columns, narrow(out, out_ptr.dtype.element_ty), mask=mask)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the last dimension: reference.rms_norm."""
    if x.dtype not in DTYPES:
        return reference.rms_norm(x, weight, eps)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() > 0:
        _launch(x, None, weight, out, None, eps)
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add x to the residual stream and normalise, in one pass: reference.add_rms_norm."""
    dtype = torch.promote_types(x.dtype, residual.dtype)
    if dtype not in DTYPES or x.shape != residual.shape:
        return reference.add_rms_norm(x, residual, weight, eps)
    total = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    out = torch.empty_like(total)
    if x.numel() > 0:
        _launch(x.contiguous(), residual.contiguous(), weight, out, total, eps)
    return out, total


def _launch(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    out: Tensor,
    total: Tensor | None,
    eps: float,
) -> None:
    size = x.shape[-1]
    x, *layout = strided_rows(x, weight)
    num_rows, num_inner, outer_stride, inner_stride, weight_stride = layout
    tile = row_tile(size)
    _rms_norm_kernel[(triton.cdiv(num_rows, tile.rows),)](
        x,
        residual,
        weight,
        out,
        total,
        num_rows,
        num_inner,
        size,
        outer_stride,
        inner_stride,
        weight_stride,
        eps,
        HAS_RESIDUAL=residual is not None,
        ROWS=tile.rows,
        BLOCK=tile.block,
        num_warps=tile.num_warps,
    )
