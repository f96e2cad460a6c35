"""Under the interpreter as on a GPU: to the nearest number, and bfloat16 is multiplied as such."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from tests.kernels.numerics import normal
from toolkit.kernels.triton.rounding import dot, narrow


@triton.jit
def _narrow_kernel(x_ptr, out_ptr, count: tl.constexpr):
    places = tl.arange(0, count)
    tl.store(out_ptr + places, narrow(tl.load(x_ptr + places), out_ptr.dtype.element_ty))


@triton.jit
def _dot_kernel(x_ptr, y_ptr, out_ptr, count: tl.constexpr):
    places = tl.arange(0, count)[:, None] * count + tl.arange(0, count)[None, :]
    total = tl.full((count, count), 1.0, tl.float32)
    tl.store(out_ptr + places, dot(tl.load(x_ptr + places), tl.load(y_ptr + places), total))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_float32_is_rounded_as_torch_does(dtype: torch.dtype, device: torch.device):
    special = torch.tensor(
        [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-30, 1.9999999, -65000.0]
    )
    ties = 1 + torch.arange(512) * 2.0**-9  # every other one lies between two bfloat16
    x = torch.cat((special, ties, normal(504, seed=0))).to(device)
    out = torch.empty(1024, dtype=dtype, device=device)
    _narrow_kernel[(1,)](x, out, count=1024)
    torch.testing.assert_close(out, x.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_are_summed_in_float32(dtype: torch.dtype, device: torch.device):
    x, y = (normal(32, 32, seed=seed, dtype=dtype).to(device) for seed in range(2))
    out = torch.empty(32, 32, device=device)
    _dot_kernel[(1,)](x, y, out, count=32)
    torch.testing.assert_close(out.double(), 1 + x.double() @ y.double(), rtol=1e-5, atol=1e-5)
