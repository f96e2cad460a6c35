"""Models are told apart by their weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from toolkit.kernels import select_ops
from toolkit.models.parts import Linear
from toolkit.runtime.fingerprint import fingerprint


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(40, 30), nn.LayerNorm(30), nn.Linear(30, 3, bias=False))


def test_the_same_weights_have_one_fingerprint():
    assert fingerprint(model(0)) == fingerprint(model(0))


def test_other_weights_shapes_or_dtypes_have_another():
    prints = {
        fingerprint(model(0)),
        fingerprint(model(1)),
        fingerprint(model(0).to(torch.bfloat16)),
        fingerprint(nn.Linear(40, 30)),
    }
    assert len(prints) == 4


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_packed_weights_are_seen_too(quantization: str | None):
    """A change in one matrix alone, as of an adapter that was merged, shows after packing."""

    def packed(*, is_tuned: bool) -> nn.Module:
        decoder = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64))
        torch.manual_seed(0)
        own = Linear(64, 64, bias=False, ops=select_ops("auto", torch.device("cpu")))
        nn.init.normal_(own.weight)
        if is_tuned:
            own.weight.data *= 1.5
        own.pack(quantization)
        decoder[1] = own
        return decoder

    assert fingerprint(packed(is_tuned=False)) == fingerprint(packed(is_tuned=False))
    assert fingerprint(packed(is_tuned=False)) != fingerprint(packed(is_tuned=True))


def test_a_weight_with_more_numbers_than_float32_can_count_has_one_too():
    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.zeros(24_576_000, dtype=torch.bfloat16))

    assert fingerprint(Wide())
