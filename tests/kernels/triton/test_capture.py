"""A CUDA graph can hold every op: no launcher waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.numerics import normal
from toolkit.kernels.triton import bind


def calls(device: torch.device) -> dict[str, Callable[[], Any]]:
    """A call of each op that returns all that the op computes."""
    x, residual = normal(4, 128, seed=0).to(device), normal(4, 128, seed=1).to(device)
    weight = normal(128, seed=2).to(device)
    query, key, value = normal(4, 8, 16, seed=3).to(device).split((4, 2, 2), dim=1)
    angles = normal(4, 8, seed=4).to(device)
    caches = [torch.zeros(2, 2, 4, 16, device=device) for _ in range(2)]
    slots = torch.tensor([5, 0, 2, 7], device=device)
    logits = normal(4, 300, seed=5).to(device)
    keys = torch.tensor([1, -2, 3, -4], device=device)
    share, top_k = torch.full((4,), 0.5, device=device), torch.full((4,), 20, device=device)
    experts, starts = normal(2, 24, 128, seed=6).to(device), torch.tensor([0, 1, 4], device=device)
    ops = bind()
    where = angles, angles, *caches, slots
    cut = {"top_k": top_k, "max_top_k": 20, "top_p": share, "min_p": share}

    def write_kv() -> list[Tensor]:
        ops["write_kv"](key, value, *caches, slots)
        return caches

    return {
        "rms_norm": lambda: ops["rms_norm"](x, weight, 1e-5),
        "add_rms_norm": lambda: ops["add_rms_norm"](x, residual, weight, 1e-5),
        "layer_norm": lambda: ops["layer_norm"](x, weight, weight, 1e-5),
        "add_layer_norm": lambda: ops["add_layer_norm"](x, residual, weight, None, 1e-5),
        "silu_mul": lambda: ops["silu_mul"](x),
        "gelu_mul": lambda: ops["gelu_mul"](x, "tanh"),
        "rotary": lambda: ops["rotary"](query, key, angles, angles),
        "write_kv": write_kv,
        "rotary_write_kv": lambda: ops["rotary_write_kv"](query, key, value, *where),
        "race": lambda: ops["race"](logits, keys),
        "argmax": lambda: ops["argmax"](logits),
        "cut_unlikely": lambda: ops["cut_unlikely"](logits.clone(), **cut),
        "grouped_linear": lambda: ops["grouped_linear"](x, experts, starts),
    }


def tensors(result: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [result] if isinstance(result, Tensor) else result


NAMES = sorted(calls(torch.device("cpu")))


def test_every_op_has_a_call():
    assert sorted(set(bind()) - {"paged_attention"}) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_op_computes_the_same_where_there_are_several_devices(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
):
    """The ops then take the device of their tensors; which that is, a GPU test says."""
    expected = calls(device)[name]()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert hasattr(bind()[name], "__wrapped__")
    torch.testing.assert_close(calls(device)[name](), expected, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", NAMES)
def test_an_op_launches_where_its_tensors_lie(name: str):
    first, second = (calls(torch.device("cuda", index))[name]() for index in range(2))
    for here, there in zip(tensors(first), tensors(second), strict=True):
        assert there.device.index == 1
        torch.testing.assert_close(there.cpu(), here.cpu(), rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_replays_what_was_captured(name: str, device: torch.device):
    call = calls(device)[name]
    expected = call()  # compiles, which no capture allows
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    graph.replay()
    torch.testing.assert_close(captured, expected, rtol=0, atol=0)
