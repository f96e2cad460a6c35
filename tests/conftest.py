"""What every test can count on: no downloads, the same examples each time, Triton where it can run.

The environment is set here, before a test file is imported, because Hugging Face's libraries and
Triton read it when they are imported, and because the kernels of the notebooks inherit it.
"""

from __future__ import annotations

import contextlib
import os

os.environ.setdefault("SMOKE", "1")  # notebooks take their small sizes
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns after every fork
# Models this small are no faster on two threads, and OpenMP spins badly beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from toolkit.kernels.cpu.build import CompileError, compile_library
from toolkit.kernels.cpu.levels import machine_level

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# No deadline: machines differ. Derandomized: a failure is a failure for everyone.
settings.register_profile("toolkit", deadline=None, derandomize=True, database=None)
settings.load_profile("toolkit")


def pytest_sessionstart() -> None:
    """Compile the C++ ops, so that every engine of this run uses the same ones."""
    with contextlib.suppress(CompileError):  # a machine without a compiler tests the torch ops
        compile_library(machine_level())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` on a machine that has none."""
    if HAS_GPU:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
