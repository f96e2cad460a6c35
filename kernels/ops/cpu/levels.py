"""Name the instruction sets that the C++ ops are compiled for, and find this machine's."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LEVELS", "Level", "machine_level"]

# Forces a lower level than the machine's: for tests, and to compare.
LEVEL_VARIABLE = "TOOLKIT_CPU_LEVEL"


@dataclass(frozen=True, slots=True)
class Level:
    """Compiler flags of one instruction set, and the CPU flags that it needs."""

    name: str
    compiler_flags: tuple[str, ...]
    cpu_flags: frozenset[str]


_AVX2 = frozenset({"avx2", "fma", "f16c", "bmi2"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"}
_BF16 = _AVX512 | {"avx512_bf16", "avx512_vnni"}
_AMX = _BF16 | {"amx_tile", "amx_bf16", "amx_int8"}
_V4_BF16 = ("-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni")

# The best first.
LEVELS = (
    Level("amx", (*_V4_BF16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"), _AMX),
    Level("avx512bf16", _V4_BF16, _BF16),
    Level("avx512", ("-march=x86-64-v4",), _AVX512),
    Level("avx2", ("-march=x86-64-v3",), _AVX2),
    Level("plain", (), frozenset()),
)


def machine_level() -> Level:
    """Return the best level that this machine has, or a lower one that $TOOLKIT_CPU_LEVEL names.

    Raises ValueError for a name that is no level, or is above the machine's.
    """
    flags = cpu_flags()
    possible = [level for level in LEVELS if level.cpu_flags <= flags]
    wanted = os.environ.get(LEVEL_VARIABLE)
    if not wanted:
        return possible[0]
    for level in possible:
        if level.name == wanted:
            return level
    names = ", ".join(level.name for level in possible)
    raise ValueError(f"{LEVEL_VARIABLE}={wanted!r}: this machine has {names}")


def cpu_flags() -> frozenset[str]:
    """Return the CPU's features by their names in /proc/cpuinfo; none where there is no such."""
    if platform.machine() != "x86_64":
        return frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split() for line in lines if line.startswith("flags")), []))
