"""Compile for sm_90 what an op would launch there, on a machine without a GPU.

For a process without TRITON_INTERPRET: once Triton is interpreted, it cannot compile.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
TARGET = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


class Report(NamedTuple):
    """What the machine code of one kernel is like."""

    kernel: str
    num_registers: int
    stack_bytes: int  # where registers are spilled to
    shared_bytes: int
    num_warps: int
    instructions: dict[str, int]  # how many of each, by the first part of its name
    copies_in_flight: int  # most groups of copies that a wait leaves on their way


def compile_launches(call: Callable[[], object]) -> list[Report]:
    """Compile each kernel that ``call`` launches, as its arguments specialize it."""
    reports = []

    def compile_instead(
        kernel: JITFunction[Any], *args: Any, grid: object, warmup: bool, **kwargs: Any
    ) -> None:
        values = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        options = {name: values.pop(name) for name in set(values) - set(kernel.arg_names)}
        reports.append(_report(kernel, _compile(kernel, values, options)))

    run, JITFunction.run = JITFunction.run, compile_instead
    try:
        call()
    finally:
        JITFunction.run = run
    return reports


def _compile(kernel: JITFunction[Any], values: dict[str, Any], options: dict[str, Any]) -> Any:
    """Give each argument the type and the divisibility that a launch would find."""
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        name, value = parameter.name, values[parameter.name]
        is_free = not parameter.do_not_specialize
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if parameter.is_constexpr or value is None or (is_whole and value == 1 and is_free):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        is_aligned = isinstance(value, torch.Tensor) or (is_whole and value % 16 == 0 and is_free)
        if is_aligned and signature[name] != "constexpr":
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=TARGET, options=options)


def _report(kernel: JITFunction[Any], compiled: Any) -> Report:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _run("cuobjdump", "-res-usage", file.name)
        listing = _run("nvdisasm", file.name)
    (resources,) = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
    instructions: dict[str, int] = {}
    for name in re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z][A-Z0-9]*)", listing, re.M):
        instructions[name] = instructions.get(name, 0) + 1
    waits = re.findall(r"cp\.async\.wait_group\s+(\d+)", compiled.asm["ptx"])
    return Report(
        kernel.__name__,
        int(resources[0]),
        int(resources[1]),
        compiled.metadata.shared,
        compiled.metadata.num_warps,
        instructions,
        max(map(int, waits), default=0),
    )


def _run(tool: str, *args: str) -> str:
    return subprocess.run([TOOLS / tool, *args], capture_output=True, text=True, check=True).stdout
