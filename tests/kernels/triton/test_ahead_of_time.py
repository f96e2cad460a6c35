"""The kernels compile for an H100 without a GPU, and nothing spills out of the registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.triton import ahead_of_time

KERNELS = {
    "_rms_norm_kernel",
    "_layer_norm_kernel",
    "_gate_mul_kernel",
    "_move_heads_kernel",
    "_grouped_linear_kernel",
    "_race_kernel",
    "_argmax_kernel",
    "_merge_kernel",
    "_cut_unlikely_kernel",
}


@pytest.mark.slow
def test_every_kernel_compiles_for_an_h100_without_spills(tmp_path: Path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(ahead_of_time.__file__)
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kernels = json.loads(done.stdout)
    assert {kernel["name"] for kernel in kernels} == KERNELS
    assert [kernel for kernel in kernels if kernel["spilled_bytes"]] == []
    products = [kernel for kernel in kernels if kernel["name"] == "_grouped_linear_kernel"]
    # Once for bfloat16 and once for float32, each with and without a bias.
    assert sorted(kernel["uses_tensor_cores"] for kernel in products) == [False, False, True, True]
