"""``toolkit doctor``: what this machine has, and what that means for serving models."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from toolkit import __version__
from toolkit.cli.console import out
from toolkit.cli.doctor_cpu import compile_ops, cpu_ops, num_cores, threads
from toolkit.cli.doctor_front_end import front_ends
from toolkit.cli.findings import Fact, Finding, Look, first_processor

__all__ = ["doctor", "examine"]

_NEEDED = "torch transformers tokenizers safetensors huggingface_hub numpy pandas triton".split()
_EXTRAS = {
    "server": "fastapi uvicorn pydantic openai httpx".split(),
    "notebook": "jupyterlab matplotlib langchain-openai".split(),
}
_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
)
_NATIVE_DTYPES = {
    "bfloat16": {"avx512_bf16", "amx_bf16"},
    "float16": {"avx512_fp16", "amx_fp16"},
    "int8": {"avx_vnni", "avx512_vnni", "amx_int8"},
}
# What changes how fast or where things run, and is easily forgotten.
_VARIABLES = (
    "OMP_PROC_BIND KMP_AFFINITY MKL_NUM_THREADS LD_PRELOAD CXX TOOLKIT_CPU_LEVEL "
    "CUDA_VISIBLE_DEVICES TRITON_INTERPRET HF_HOME HF_HUB_OFFLINE TOKENIZERS_PARALLELISM"
).split()


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
    compile_now: Annotated[
        bool, typer.Option("--compile", help="Compile the C++ ops now.")
    ] = False,
) -> None:
    """Show what this machine has: Python, packages, CPU, GPU, C++ ops, notebooks, settings.

    Exits with 1 if something must be mended.
    """
    findings = examine({"C++ ops, now": compile_ops, **_SECTIONS} if compile_now else _SECTIONS)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.must_mend for finding in findings):
        raise typer.Exit(1)


def _show(findings: Sequence[Finding]) -> None:
    table = Table(title="toolkit doctor", show_header=False, title_justify="left")
    for _ in range(2):
        table.add_column(overflow="fold")  # a path that is cut off helps nobody
    section = None
    for finding in findings:
        if finding.section != section:
            section = finding.section
            table.add_section()
            table.add_row(f"[bold]{section}[/]", "")
        colour = "red" if finding.must_mend else "yellow"
        mark = "" if finding.is_fine else f"[{colour}]![/] "
        advice = f"\n[{colour}]{escape(finding.advice)}[/]" if finding.advice else ""
        value = escape(finding.value) + advice
        table.add_row(f"  {escape(finding.name)}", mark + value)
    out.print(table)


def examine(sections: Mapping[str, Look] | None = None) -> list[Finding]:
    """Return all findings; a part that cannot be examined is a finding too."""
    findings = []
    for section, look in (_SECTIONS if sections is None else sections).items():
        try:
            findings += [
                Finding(
                    section, fact.name, fact.value, not fact.advice, fact.advice, fact.must_mend
                )
                for fact in look()
            ]
        except Exception as error:  # whatever is broken here is what the user wants to know
            problem = f"{type(error).__name__}: {error}"
            findings.append(
                Finding(section, "could not be examined", problem, is_fine=False, must_mend=True)
            )
    return findings


def _python() -> Iterator[Fact]:
    yield Fact("toolkit", __version__)
    is_old = sys.version_info < (3, 10)
    advice = "3.10 is the oldest that is supported" if is_old else ""
    yield Fact("Python", f"{platform.python_version()} ({sys.executable})", advice, is_old)
    yield Fact("system", platform.platform())


def _processor() -> Iterator[Fact]:
    info = first_processor()
    name = info.get("model name", platform.processor() or platform.machine())
    yield Fact("processor", name)
    yield Fact("cores", f"{num_cores()} usable, {os.cpu_count()} logical")
    flags = set(info.get("flags", "").split())
    if flags:
        named = ", ".join(flag for flag in _CPU_FLAGS if flag in flags) or "none"
        yield Fact("instructions", named)
        for dtype, natives in _NATIVE_DTYPES.items():
            native = natives & flags
            yield Fact(dtype, f"native ({', '.join(sorted(native))})" if native else "emulated")
    memory = _memory_gib()
    if memory:
        yield Fact("memory", memory)


def _torch() -> Iterator[Fact]:
    import torch

    yield Fact("torch", torch.__version__)
    yield Fact("CPU code", torch.backends.cpu.get_cpu_capability())
    native = _NATIVE_DTYPES["bfloat16"] & set(first_processor().get("flags", "").split())
    chosen = "kept" if native else "float32 is used in its place"
    yield Fact("bfloat16 models", f'{chosen} on this CPU (dtype="auto")')
    yield Fact("tensor parallel", _tensor_parallel())


def _tensor_parallel() -> str:
    """Say what joins the processes of one model, and how many GPUs they could have."""
    import torch
    from torch import distributed

    has_any = distributed.is_available()
    gloo = "gloo on the CPU" if has_any and distributed.is_gloo_available() else "no gloo"
    nccl = "no NCCL"
    if has_any and distributed.is_nccl_available():
        nccl = f"NCCL on {torch.cuda.device_count()} GPUs"
    return f"{gloo}, {nccl}"


def _gpu() -> Iterator[Fact]:
    import torch

    if not torch.cuda.is_available():
        seen = "none that torch can use" if shutil.which("nvidia-smi") else "none"
        yield Fact("GPU", f"{seen}; the CPU does the work")
        return
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        bf16 = "bfloat16" if gpu.major >= 8 else "no bfloat16"
        capability = f"compute capability {gpu.major}.{gpu.minor}"
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        yield Fact(f"cuda:{index}", f"{gpu.name}, {memory}, {capability}, {bf16}")
    yield Fact("CUDA of torch", str(torch.version.cuda))


def _kernels() -> Iterator[Fact]:
    import torch

    from toolkit.demo import WEIGHTS
    from toolkit.kernels import select_ops

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield Fact("kernels", f"{select_ops('auto', device).name} (kernels='auto' on {device})")
    compiler = next(filter(None, map(shutil.which, _compilers())), None)
    if compiler is None:
        advice = "install g++, or name a compiler in $CXX, for the C++ ops"
        yield Fact("C++ compiler", "none", advice)
    else:
        yield Fact("C++ compiler", f"{_first_line([compiler, '--version'])} ({compiler})")
    has_demo = (Path(WEIGHTS) / "config.json").exists()
    advice = "" if has_demo else "reinstall"
    yield Fact("demo model", "there" if has_demo else "missing", advice, not has_demo)


def _compilers() -> Iterator[str]:
    """Name what kernels/ops/cpu/build.py looks for, in its order."""
    yield from filter(None, (os.environ.get("CXX"), "g++", "c++"))


def _packages() -> Iterator[Fact]:
    for name in _NEEDED:
        found = _version(name)
        is_fine = bool(found) or (name == "triton" and sys.platform != "linux")
        advice = "" if is_fine else f"pip install {name}"
        yield Fact(name, found or "missing", advice, not is_fine)
    for extra, names in _EXTRAS.items():
        for name in names:
            found = _version(name)
            advice = "" if found else f"pip install 'llm-serving-toolkit[{extra}]'"
            yield Fact(f"{name} ({extra})", found or "missing", advice)


def _environment() -> Iterator[Fact]:
    values = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    for name, value in values.items():
        yield Fact(name, value)
    if not values:
        yield Fact("variables", "none of those that matter is set")


_SECTIONS: dict[str, Look] = {
    "Python": _python,
    "processor": _processor,
    "torch": _torch,
    "threads": threads,
    "GPU": _gpu,
    "toolkit": _kernels,
    "C++ ops": cpu_ops,
    "packages": _packages,
    "notebooks": front_ends,
    "environment": _environment,
}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory_gib() -> str:
    path = Path("/proc/meminfo")
    if not path.exists():
        return ""
    pairs: Any = (line.partition(":") for line in path.read_text().splitlines())
    kib = {name: int(value.split()[0]) for name, _, value in pairs}
    return f"{kib['MemTotal'] / 2**20:.1f} GiB, {kib['MemAvailable'] / 2**20:.1f} GiB free"


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout or done.stderr).partition("\n")[0].strip()
