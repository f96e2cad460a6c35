"""Ops that are wrong on a device are found before an engine computes with them."""

from __future__ import annotations

import pytest
import torch

from toolkit.kernels.triton import bind
from toolkit.kernels.triton.self_check import disagreements


def test_the_ops_agree_with_the_reference_here(device: torch.device):
    ops = bind(batch_invariant=True)
    assert disagreements(ops, device) == {}


@pytest.mark.parametrize("name", sorted(bind(batch_invariant=True)))
def test_every_op_that_is_wrong_is_named(name: str):
    def wrong(*arguments, **options):
        result = own(*arguments, **options)
        if name in ("write_kv", "rotary_write_kv"):
            caches = [x for x in arguments if isinstance(x, torch.Tensor) and x.dim() == 4]
            caches[1][0, 0] += 1
        first = result[0] if isinstance(result, tuple) else result
        if first is not None:
            first += 1 + first
        return result

    own = bind(batch_invariant=True)[name]
    found = disagreements({name: wrong}, torch.device("cpu"))
    assert set(found) == {name}
    assert found[name].startswith(("off by", "other token ids"))


def test_an_op_that_cannot_be_compiled_is_named_with_its_error():
    def broken(*arguments, **options):
        raise RuntimeError("ptxas died")

    found = disagreements({"silu_mul": broken}, torch.device("cpu"))
    assert found == {"silu_mul": "RuntimeError: ptxas died"}
