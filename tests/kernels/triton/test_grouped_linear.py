"""A matrix per group of rows in Triton against float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tests.kernels.numerics import normal
from toolkit.kernels.triton.grouped_linear import grouped_linear

# Roundings of sums of 70 products; of the half dtypes, only the result's.
_BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@pytest.mark.parametrize("dtype", _BOUNDS)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("sizes", [(1,), (0, 5, 0, 0), (63, 0, 66, 1), (3,) * 9, (0, 0)])
def test_each_group_has_its_own_matrix(
    dtype: torch.dtype, has_bias: bool, sizes: tuple[int, ...], device: torch.device
):
    starts = torch.tensor([0, *sizes]).cumsum(0)
    x = normal(int(starts[-1]), 70, seed=0, dtype=dtype).to(device)
    weight = (normal(len(sizes), 131, 70, seed=1) / 70**0.5).to(dtype).to(device)
    bias = normal(len(sizes), 131, seed=2, dtype=dtype).to(device) if has_bias else None
    out = grouped_linear(x, weight, starts.to(device), bias)
    assert out.dtype is dtype
    for group, (start, end) in enumerate(pairwise(starts.tolist())):
        expected = x[start:end].double() @ weight[group].double().T
        if bias is not None:
            expected += bias[group].double()
        bound = _BOUNDS[dtype]
        torch.testing.assert_close(out[start:end].double(), expected, rtol=bound, atol=bound)


def test_a_row_does_not_depend_on_its_neighbours(device: torch.device):
    x, weight = normal(80, 40, seed=0).to(device), normal(2, 20, 40, seed=1).to(device)
    together = grouped_linear(x, weight, torch.tensor([0, 70, 80], device=device))
    alone = grouped_linear(x[69:71], weight, torch.tensor([0, 1, 2], device=device))
    assert torch.equal(alone, together[69:71])


def test_views_are_taken_and_no_rows_give_none(device: torch.device):
    wide, weight = normal(6, 80, seed=0).to(device), normal(2, 20, 40, seed=1).to(device)
    starts = torch.tensor([0, 2, 6], device=device)
    for view in (wide[:, 40:], wide[:, ::2]):
        together = grouped_linear(view.contiguous(), weight, starts)
        assert torch.equal(grouped_linear(view, weight, starts), together)
    assert grouped_linear(wide[:0, :40], weight, starts * 0).shape == (0, 20)
