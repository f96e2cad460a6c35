"""Compile what the launchers of the Triton ops would run on an H100, where there is no GPU.

Runs in a process of its own without TRITON_INTERPRET, and prints a JSON list: of each kernel its
name, the bytes that a thread spills, its registers, whether it uses the tensor cores and so on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from toolkit.kernels.triton import bind
from toolkit.kernels.triton.ahead_of_time import compiled, resources
from toolkit.kernels.triton.linear import linear

# Rows of each tile that linear_tiles.py has, and widths that can be copied quickly and cannot.
NUM_ROWS = (16, 256, 2048)
WIDTHS = (2048, 2056, 1000, 71)


def _empty(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def calls() -> None:
    """Call every op on shapes of a real model: Qwen3-8B's, and an expert layer's."""
    ops = bind()
    for dtype in (torch.bfloat16, torch.float32):
        _call_row_ops(ops, dtype)
    logits = torch.empty(2, 151_936)
    keys = torch.empty(2, dtype=torch.int64)
    ops["race"](logits, keys)
    ops["argmax"](logits)
    top_k, share = torch.empty(2, dtype=torch.int64), torch.empty(2)
    for top_p in (None, share):
        for min_p in (None, share):
            ops["cut_unlikely"](logits, top_k=top_k, max_top_k=20, top_p=top_p, min_p=min_p)


def _call_row_ops(ops: dict[str, Callable[..., Any]], dtype: torch.dtype) -> None:
    x, weight = torch.empty(4, 4096, dtype=dtype), torch.empty(4096, dtype=dtype)
    ops["rms_norm"](x, weight, 1e-6)
    ops["add_rms_norm"](x, x, weight, 1e-6)
    ops["layer_norm"](x, weight, weight, 1e-6)
    ops["add_layer_norm"](x, x, weight, None, 1e-6)
    ops["silu_mul"](torch.empty(4, 24_576, dtype=dtype))
    for approximate in ("none", "tanh"):
        ops["gelu_mul"](torch.empty(4, 24_576, dtype=dtype), approximate)
    heads = torch.empty(4, 48, 128, dtype=dtype)
    query, key, value = heads.split((32, 8, 8), dim=1)
    cache = torch.empty(4, 8, 16, 128, dtype=dtype)
    slots = torch.empty(4, dtype=torch.int64)
    angles, norm = torch.empty(4, 64), torch.empty(128, dtype=dtype)
    ops["rms_norm"](query, norm, 1e-6)
    ops["write_kv"](key, value, cache, cache, slots)
    for interleaved in (False, True):
        ops["rotary"](query, key, angles, angles, interleaved=interleaved)
    half_turned = angles[:, :48]
    for turn in (angles, half_turned):
        where = turn, turn, cache, cache, slots
        ops["rotary_write_kv"](query, key, value, *where, head_norms=(norm, norm, 1e-6))
    starts, bias = _empty(129, dtype=torch.int64), _empty(128, 1536, dtype=dtype)
    for width in WIDTHS:
        rows, experts = _empty(64, width, dtype=dtype), _empty(128, 1536, width, dtype=dtype)
        ops["grouped_linear"](rows, experts, starts)
        ops["grouped_linear"](rows, experts, starts, bias)
        for num_rows in NUM_ROWS:
            rows = _empty(num_rows, width, dtype=dtype)
            linear(rows, experts[0], bias[0])
            linear(rows, experts[0])


if __name__ == "__main__":
    json.dump([resources(kernel) for kernel in compiled(calls)], sys.stdout)
