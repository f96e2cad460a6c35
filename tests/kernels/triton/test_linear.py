"""Linear maps of batch-invariant mode in Triton against float64 and against themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.numerics import normal
from toolkit.kernels.triton.linear import linear
from toolkit.kernels.triton.linear_tiles import linear_tile

# Roundings of sums of 140 products; of the half dtypes, only the result's.
_BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def matrix(out_features: int, in_features: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    scaled = normal(out_features, in_features, seed=1) / in_features**0.5
    return scaled.to(dtype).to(device)


@pytest.mark.parametrize("dtype", _BOUNDS)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("num_rows", [1, 33, 64, 65, 700])
@pytest.mark.parametrize(("out_features", "in_features"), [(131, 140), (128, 128), (1, 1)])
def test_rows_are_multiplied(
    dtype: torch.dtype,
    has_bias: bool,
    num_rows: int,
    out_features: int,
    in_features: int,
    device: torch.device,
):
    x = normal(num_rows, in_features, seed=0, dtype=dtype).to(device)
    weight = matrix(out_features, in_features, dtype, device)
    bias = normal(out_features, seed=2, dtype=dtype).to(device) if has_bias else None
    out = linear(x, weight, bias)
    expected = x.double() @ weight.double().T
    if bias is not None:
        expected += bias.double()
    assert out.dtype is dtype
    bound = _BOUNDS[dtype]
    torch.testing.assert_close(out.double(), expected, rtol=bound, atol=bound)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", _BOUNDS)
def test_a_row_gets_the_same_bits_in_any_batch(dtype: torch.dtype, device: torch.device):
    """Across every change of tile: one row, a few, and more than a thousand."""
    x, weight = normal(1030, 200, seed=0, dtype=dtype).to(device), matrix(96, 200, dtype, device)
    together = linear(x, weight)
    for first, count in (
        (0, 1),
        (5, 1),
        (63, 1),
        (64, 64),
        (3, 65),
        (1029, 1),
        (0, 1024),
        (500, 300),
    ):
        part = slice(first, first + count)
        assert torch.equal(linear(x[part], weight), together[part]), (first, count)


def test_every_tile_takes_as_many_inputs_at_a_time():
    """A row's sum is then added in one order whatever the number of rows."""
    for dtype in (torch.bfloat16, torch.float32):
        for in_features in (4096, 4100):
            counts = (1, 64, 65, 1023, 1024, 100_000)
            tiles = [linear_tile(num_rows, in_features, dtype) for num_rows in counts]
            assert len({tile.inner for tile in tiles}) == 1
            assert dtype is torch.float32 or all(tile.rows >= 64 for tile in tiles)


def test_views_are_taken_and_no_rows_give_none(device: torch.device):
    wide, weight = normal(6, 80, seed=0).to(device), normal(20, 40, seed=1).to(device)
    for view in (wide[:, 40:], wide[:, ::2]):
        assert torch.equal(linear(view, weight), linear(view.contiguous(), weight))
    turned = normal(40, 20, seed=1).to(device).T
    assert torch.equal(linear(wide[:, :40], turned), linear(wide[:, :40], turned.contiguous()))
    assert linear(wide[:0, :40], weight).shape == (0, 20)


def test_other_dtypes_are_torchs(device: torch.device):
    x, weight = (normal(n, 8, seed=n).double().to(device) for n in (3, 5))
    assert torch.equal(linear(x, weight), torch.nn.functional.linear(x, weight))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("out_features", "in_features"), [(6144, 4096), (4096, 12_288), (500, 72)])
def test_large_maps_give_the_same_bits_in_any_batch(
    dtype: torch.dtype, out_features: int, in_features: int
):
    """The products of Hopper's tensor cores, at the widths of every tile."""
    device = torch.device("cuda")
    x = normal(2048, in_features, seed=0, dtype=dtype).to(device)
    weight = matrix(out_features, in_features, dtype, device)
    together = linear(x, weight)
    bound = _BOUNDS[dtype]
    expected = x.double() @ weight.double().T
    torch.testing.assert_close(together.double(), expected, rtol=bound, atol=bound)
    for count in (1, 2, 17, 64, 65, 128, 1000, 1024, 1500):
        assert torch.equal(linear(x[:count], weight), together[:count]), count
        assert torch.equal(linear(x[-count:], weight), together[-count:]), count
