"""The levels of the C++ ops that this machine can run, each compiled once in a run of the tests."""

from __future__ import annotations

from functools import cache

import pytest

from toolkit.kernels.cpu.build import CompileError, compile_library
from toolkit.kernels.cpu.levels import LEVELS, cpu_flags
from toolkit.kernels.cpu.library import Library

# AMX has no part in the row ops: to them it is avx512bf16.
ROW_LEVELS = [
    level.name for level in LEVELS if level.cpu_flags <= cpu_flags() and level.name != "amx"
]


@cache
def library_of(level_name: str, *, num_threads: int = 1) -> Library:
    """The library of one level; skips the test without a compiler."""
    level = next(level for level in LEVELS if level.name == level_name)
    try:
        library = Library(compile_library(level))
    except CompileError as error:
        pytest.skip(str(error).splitlines()[0])
    library.set_num_threads(num_threads)
    return library
