"""The kernels compile for an H100 without a GPU, and nothing spills out of the registers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.triton import ahead_of_time

KERNELS = {
    "_rms_norm_kernel",
    "_layer_norm_kernel",
    "_gate_mul_kernel",
    "_move_heads_kernel",
    "_grouped_linear_kernel",
    "_linear_kernel",
    "_race_kernel",
    "_argmax_kernel",
    "_merge_kernel",
    "_bounds_kernel",
    "_top_k_kernel",
    "_top_p_kernel",
    "_cut_kernel",
}

LINEARS = {"_grouped_linear_kernel", "_linear_kernel"}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    cache = str(tmp_path_factory.mktemp("compiled"))
    environment = {**os.environ, "TRITON_CACHE_DIR": cache}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(ahead_of_time.__file__)
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_kernel_compiles_for_an_h100_without_spills(kernels: list[dict[str, Any]]):
    assert {kernel["name"] for kernel in kernels} == KERNELS
    assert [kernel for kernel in kernels if kernel["spilled_bytes"]] == []


@pytest.mark.slow
def test_half_precision_is_multiplied_by_hoppers_own_instructions(kernels: list[dict[str, Any]]):
    """Of one depth, four to a step of 64 inputs, whatever the tile: a row's sum has one order."""
    linears = [kernel for kernel in kernels if kernel["name"] in LINEARS]
    half = [kernel for kernel in linears if "bf16" in kernel["dtypes"]]
    whole = [kernel for kernel in linears if "fp32" in kernel["dtypes"]]
    assert len(half) + len(whole) == len(linears)
    assert len(half) > len(LINEARS) < len(whole)
    assert [kernel for kernel in whole if kernel["products"]] == []  # without tensor cores
    for kernel in half:
        assert len(kernel["products"]) == 1, kernel
        ((name, count),) = kernel["products"].items()
        assert re.fullmatch(r"wgmma\.m64n\d+k16", name)
        assert count == 4
