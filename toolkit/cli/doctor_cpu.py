"""The sections of `toolkit doctor` on the C++ ops and on threads."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from toolkit.cli.findings import Fact

__all__ = ["compile_ops", "cpu_ops", "num_cores", "threads"]

# What OpenMP reads when it is loaded, and never again.
_OPENMP_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
_OPENMP_LIBRARIES = ("libgomp", "libiomp", "libomp")


def cpu_ops() -> Iterator[Fact]:
    """Look at the levels of the C++ ops: those here, the chosen one, and whether it is compiled."""
    from toolkit.kernels.cpu.build import find_compiled
    from toolkit.kernels.cpu.levels import LEVELS, cpu_flags, machine_level

    flags = cpu_flags()
    yield Fact("levels here", ", ".join(lv.name for lv in LEVELS if lv.cpu_flags <= flags))
    try:
        level = machine_level()
    except ValueError as error:
        yield Fact("level", str(error), "unset TOOLKIT_CPU_LEVEL, or name one of those", True)
        return
    forced = " (TOOLKIT_CPU_LEVEL)" if os.environ.get("TOOLKIT_CPU_LEVEL") else ""
    yield Fact("level", level.name + forced)
    path = find_compiled(level)
    if path is None:
        advice = "toolkit doctor --compile does it now; else the first engine does, for the next"
        yield Fact("compiled", "no", advice)
    else:
        yield Fact("compiled", str(path))


def compile_ops() -> Iterator[Fact]:
    """Compile the C++ ops of the chosen level now, and say how long it took."""
    from toolkit.kernels.cpu.build import CompileError, compile_library, find_compiled
    from toolkit.kernels.cpu.levels import machine_level

    try:
        level = machine_level()
        was_there = find_compiled(level) is not None
        started_s = time.perf_counter()
        path = compile_library(level)
    except (ValueError, OSError, CompileError) as error:
        yield Fact("compiling", "failed", str(error), True)
        return
    took_s = time.perf_counter() - started_s
    yield Fact(
        "compiling", f"{level.name} was there already" if was_there else f"{took_s:.1f} s: {path}"
    )


def threads() -> Iterator[Fact]:
    """Look at torch's threads and at the OpenMP runtime that they come from."""
    import torch

    count, cores = torch.get_num_threads(), num_cores()
    advice = f"more threads than cores ({cores}) slow every step down" if count > cores else ""
    interop = torch.get_num_interop_threads()
    yield Fact("threads", f"{count}, {interop} between ops", advice, count > cores)
    runtimes = _openmp_runtimes()
    several = "two runtimes mean two pools of threads that get into each other's way"
    shown = ", ".join(runtimes) or "none seen"
    yield Fact("OpenMP", shown, several if len(runtimes) > 1 else "")
    own = _variables_at_start()
    for name in _OPENMP_VARIABLES:
        if name in os.environ:
            by = "from the environment" if own.get(name) == os.environ[name] else "by this process"
            yield Fact(name, f"{os.environ[name]} (set {by})")
        elif name == "OMP_WAIT_POLICY":
            yield Fact(name, "not set")
    modules = list(sys.modules)
    is_late = modules.index("torch") < modules.index("toolkit")
    yield Fact(
        "imported first",
        "torch" if is_late else "toolkit",
        "import toolkit before torch, which reads the wait policy as it loads" if is_late else "",
    )


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _openmp_runtimes() -> list[str]:
    """Return the OpenMP libraries that this process has loaded; none where the system hides it."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    paths = {Path(line.split()[-1]) for line in maps.read_text().splitlines() if "/" in line}
    return sorted(str(path) for path in paths if path.name.startswith(_OPENMP_LIBRARIES))


def _variables_at_start() -> dict[str, str]:
    """Return the environment that this process was started with."""
    path = Path("/proc/self/environ")
    if not path.exists():
        return dict(os.environ)
    pairs = (entry.partition("=") for entry in path.read_text(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs}
