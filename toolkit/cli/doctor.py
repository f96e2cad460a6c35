"""``toolkit doctor``: what this machine has, and what that means for serving models."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from toolkit import __version__
from toolkit.cli.console import out

__all__ = ["Finding", "doctor", "examine"]

_NEEDED = "torch transformers tokenizers safetensors huggingface_hub numpy pandas triton".split()
_EXTRAS = {
    "server": "fastapi uvicorn pydantic openai httpx".split(),
    "notebook": "jupyterlab ipywidgets matplotlib langchain-openai".split(),
}
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# What changes how fast or where things run, and is easily forgotten.
_VARIABLES = (
    "OMP_NUM_THREADS OMP_PROC_BIND KMP_AFFINITY KMP_BLOCKTIME MKL_NUM_THREADS LD_PRELOAD "
    "CUDA_VISIBLE_DEVICES TRITON_INTERPRET HF_HOME HF_HUB_OFFLINE TOKENIZERS_PARALLELISM"
).split()


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact; ``is_fine`` is False where something is missing, and ``advice`` says what to do."""

    section: str
    name: str
    value: str
    is_fine: bool = True
    advice: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Show what this machine has: Python, packages, CPU, GPU, compiler, settings."""
    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    table = Table(title="toolkit doctor", show_header=False, title_justify="left")
    for _ in range(2):
        table.add_column(overflow="fold")  # a path that is cut off helps nobody
    section = None
    for finding in findings:
        if finding.section != section:
            section = finding.section
            table.add_section()
            table.add_row(f"[bold]{section}[/]", "")
        mark = "" if finding.is_fine else "[yellow]![/] "
        value = escape(finding.value) + (f"\n[yellow]{finding.advice}[/]" if finding.advice else "")
        table.add_row(f"  {escape(finding.name)}", mark + value)
    out.print(table)


def examine() -> list[Finding]:
    """Return all findings; a part that cannot be examined is a finding too."""
    findings = []
    for section, look in _SECTIONS.items():
        try:
            findings += [
                Finding(section, name, value, not advice, advice) for name, value, advice in look()
            ]
        except Exception as error:  # whatever is broken here is what the user wants to know
            problem = f"{type(error).__name__}: {error}"
            findings.append(Finding(section, "could not be examined", problem, is_fine=False))
    return findings


# Each of these yields (name, value, advice); no advice means that all is well.
_Rows = Iterator[tuple[str, str, str]]


def _python() -> _Rows:
    yield "toolkit", __version__, ""
    advice = "" if sys.version_info >= (3, 10) else "3.10 is the oldest that is supported"
    yield "Python", f"{platform.python_version()} ({sys.executable})", advice
    yield "system", platform.platform(), ""


def _processor() -> _Rows:
    info = _cpuinfo()
    yield "processor", info.get("model name", platform.processor() or platform.machine()), ""
    yield "cores", f"{_num_cores()} usable, {os.cpu_count()} logical", ""
    flags = set(info.get("flags", "").split())
    if flags:
        yield "instructions", ", ".join(flag for flag in _CPU_FLAGS if flag in flags) or "none", ""
    memory = _memory_gib()
    if memory:
        yield "memory", memory, ""


def _torch() -> _Rows:
    import torch

    yield "torch", torch.__version__, ""
    threads, cores = torch.get_num_threads(), _num_cores()
    advice = f"more threads than cores ({cores}) slow every step down" if threads > cores else ""
    yield "threads", f"{threads}, {torch.get_num_interop_threads()} between ops", advice
    yield "CPU code", torch.backends.cpu.get_cpu_capability(), ""
    has_bf16 = bool(set(_cpuinfo().get("flags", "").split()) & {"avx512_bf16", "amx_bf16"})
    yield "bfloat16 on CPU", "native" if has_bf16 else "emulated, so float32 is used", ""


def _gpu() -> _Rows:
    import torch

    if not torch.cuda.is_available():
        seen = "none that torch can use" if shutil.which("nvidia-smi") else "none"
        yield "GPU", f"{seen}; the CPU does the work", ""
        return
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        bf16 = "bfloat16" if gpu.major >= 8 else "no bfloat16"
        capability = f"compute capability {gpu.major}.{gpu.minor}"
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        yield f"cuda:{index}", f"{gpu.name}, {memory}, {capability}, {bf16}", ""
    yield "CUDA of torch", str(torch.version.cuda), ""


def _kernels() -> _Rows:
    import torch

    from toolkit.demo import WEIGHTS
    from toolkit.kernels import select_ops

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield "kernels", f"{select_ops('auto', device).name} (kernels='auto' on {device})", ""
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        yield "C++ compiler", "none", "install one (g++ or clang++) for the compiled CPU kernels"
    else:
        yield "C++ compiler", f"{_first_line([compiler, '--version'])} ({compiler})", ""
    has_demo = (Path(WEIGHTS) / "config.json").exists()
    yield "demo model", "there" if has_demo else "missing", "" if has_demo else "reinstall"


def _packages() -> _Rows:
    for name in _NEEDED:
        found = _version(name)
        optional = name == "triton" and sys.platform != "linux"
        yield name, found or "missing", "" if found or optional else f"pip install {name}"
    for extra, names in _EXTRAS.items():
        for name in names:
            found = _version(name)
            advice = "" if found else f"pip install 'llm-serving-toolkit[{extra}]'"
            yield f"{name} ({extra})", found or "missing", advice


def _environment() -> _Rows:
    values = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    for name, value in values.items():
        yield name, value, ""
    if not values:
        yield "variables", "none of those that matter is set", ""


_SECTIONS: dict[str, Callable[[], _Rows]] = {
    "Python": _python,
    "processor": _processor,
    "torch": _torch,
    "GPU": _gpu,
    "toolkit": _kernels,
    "packages": _packages,
    "environment": _environment,
}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """Return the first processor of /proc/cpuinfo; nothing on other systems."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


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
