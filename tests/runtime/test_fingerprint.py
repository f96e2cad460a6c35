"""Models are told apart by their weights."""

from __future__ import annotations

import torch
from torch import nn

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
