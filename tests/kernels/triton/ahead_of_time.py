"""Compile what the launchers of the Triton ops would run on an H100, where there is no GPU.

Runs in a process of its own without TRITON_INTERPRET, and prints a JSON list: of each kernel its
name, the bytes that a thread spills, its registers, whether it uses the tensor cores and so on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from toolkit.kernels.triton import bind


class H100:
    """A driver of Triton's that can only say what it is."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(calls: Callable[[], None]) -> list[Any]:
    """Collect the kernels that the calls would launch, compiled."""
    kernels: dict[str, Any] = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        kernels[kernel.hash] = kernel

    JITFunction.run = compile_only
    triton.runtime.driver.set_active(H100())
    try:
        calls()
    finally:
        JITFunction.run = run
    return list(kernels.values())


def facts(kernel: Any) -> dict[str, Any]:
    """Read a kernel's resources out of its machine code."""
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        done = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    usage = dict(
        word.split(":") for word in done.stdout.split() if word.count(":") == 1 and word[-1] != ":"
    )
    waits = re.findall(r"cp\.async\.wait_group\s+(\d+)", kernel.asm["ptx"])
    return {
        "name": kernel.metadata.name,
        "spilled_bytes": int(usage["LOCAL"]) + int(usage["STACK"]),
        "registers": int(usage["REG"]),
        "shared_bytes": kernel.metadata.shared,
        "num_warps": kernel.metadata.num_warps,
        "uses_tensor_cores": "mma" in kernel.asm["ptx"],
        "uses_warp_groups": "wgmma" in kernel.asm["ptx"],  # Hopper's own way to use them
        # The most groups of copies to shared memory that a wait leaves on their way.
        "copies_in_flight": max(map(int, waits), default=0),
    }


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
    experts = torch.empty(128, 1536, 2048, dtype=dtype)
    starts = torch.empty(129, dtype=torch.int64)
    ops["grouped_linear"](torch.empty(64, 2048, dtype=dtype), experts, starts)
    bias = torch.empty(128, 1536, dtype=dtype)
    ops["grouped_linear"](torch.empty(64, 2048, dtype=dtype), experts, starts, bias)


if __name__ == "__main__":
    json.dump([facts(kernel) for kernel in compiled(calls)], sys.stdout)
