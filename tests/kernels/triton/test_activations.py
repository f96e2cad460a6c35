"""Gated activations in Triton against float64."""

from __future__ import annotations

import math

import pytest
import torch

from tests.kernels.numerics import BOUNDS, assert_within, normal
from toolkit.kernels.triton.activations import gelu_mul, silu_mul


def expected(gate_up: torch.Tensor) -> dict[str, torch.Tensor]:
    gate, up = gate_up.double().chunk(2, dim=-1)
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    return {
        "silu": torch.sigmoid(gate) * gate * up,
        "none": gate * 0.5 * torch.erfc(-gate / math.sqrt(2)) * up,
        "tanh": 0.5 * gate * (1 + torch.tanh(inner)) * up,
    }


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("num_tokens", "width"), [(5, 37), (0, 4), (1, 1), (2, 1023), (2, 1025)])
def test_the_gate_multiplies_the_second_half(
    dtype: torch.dtype, num_tokens: int, width: int, device: torch.device
):
    gate_up = 3 * normal(num_tokens, 2 * width, seed=0, dtype=dtype).to(device)
    wanted = expected(gate_up)
    assert_within(silu_mul(gate_up), wanted["silu"])
    for approximate in ("none", "tanh"):
        assert_within(gelu_mul(gate_up, approximate), wanted[approximate])


def test_they_are_right_over_their_whole_range(device: torch.device):
    gate = torch.cat((torch.linspace(-30, 30, 6001), torch.tensor([-1e4, -200.0, 200.0, 1e4])))
    rows = torch.cat((gate, torch.ones_like(gate))).unsqueeze(0).to(device)
    wanted = expected(rows)
    for actual, name in (
        (silu_mul(rows), "silu"),
        (gelu_mul(rows, "none"), "none"),
        (gelu_mul(rows, "tanh"), "tanh"),
    ):
        torch.testing.assert_close(actual.double(), wanted[name], rtol=1e-6, atol=2e-6)


def test_views_and_more_dimensions_are_taken(device: torch.device):
    wide = normal(4, 3, 40, seed=0).to(device)
    for view in (wide, wide[:, 1], wide[:, 1, :30], wide.transpose(0, 1), wide[..., ::2]):
        assert torch.equal(silu_mul(view), silu_mul(view.contiguous()))
        assert silu_mul(view).shape == (*view.shape[:-1], view.shape[-1] // 2)
