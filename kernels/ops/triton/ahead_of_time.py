"""Compile what launchers would run on an H100, where there is no GPU, and read the machine code.

Needs a process of its own, without TRITON_INTERPRET, which afterwards launches nothing. Tensors may
lie on the device "meta", where they take no memory. Nothing here says how fast a kernel is.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

__all__ = ["compiled", "resources"]


class _H100:
    """A driver of Triton's that can only say what it is."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(calls: Callable[[], object]) -> list[Any]:
    """Collect the kernels that the calls would launch, each once; what the calls return is void."""
    kernels: dict[str, Any] = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        kernels[kernel.hash] = kernel

    JITFunction.run = compile_only
    triton.runtime.driver.set_active(_H100())
    try:
        calls()
    finally:
        JITFunction.run = run
    return list(kernels.values())


def resources(kernel: Any) -> dict[str, Any]:
    """Read what a program of a compiled kernel takes, and by which instructions it multiplies."""
    ptx = kernel.asm["ptx"]
    usage = _usage(kernel.asm["cubin"])
    waits = re.findall(r"cp\.async\.wait_group\s+(\d+)", ptx)
    products = re.findall(r"((?:wg)?mma)\.(?:mma_async\.)?sync\.aligned\.(m\d+n\d+k\d+)", ptx)
    return {
        "name": kernel.metadata.name,
        # Of the tensors that it reads and writes: "bf16", "fp32", "i64".
        "dtypes": sorted({t[1:] for t in kernel.src.signature.values() if t.startswith("*")}),
        "spilled_bytes": usage["LOCAL"] + usage["STACK"],
        "registers": usage["REG"],
        "shared_bytes": kernel.metadata.shared,
        "num_warps": kernel.metadata.num_warps,
        # Tensor cores' instructions in the code, a loop's once; "wgmma" is Hopper's own.
        "products": dict(Counter(".".join(product) for product in products)),
        # The most groups of copies to shared memory that a wait leaves on their way.
        "copies_in_flight": max(map(int, waits), default=0),
    }


def _usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    words = re.findall(r"\b(REG|STACK|LOCAL):(\d+)", done.stdout)
    return {name: int(count) for name, count in words}
