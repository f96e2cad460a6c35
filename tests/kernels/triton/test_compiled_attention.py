"""Attention as machine code for sm_90: no GPU is needed to see that it is what it should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("compiled"))
    command = [sys.executable, "-m", "tests.kernels.triton.compile_attention"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_every_kernel_is_compiled(reports: list[dict[str, Any]]):
    names = {report["kernel"] for report in reports}
    assert names == {"_chunk_kernel", "_split_kernel", "_merge_kernel"}


def test_no_register_is_spilled(reports: list[dict[str, Any]]):
    for report in reports:
        assert report["stack_bytes"] == 0, report
        assert not {"STL", "LDL"} & set(report["instructions"]), report


def test_products_run_on_tensor_cores(reports: list[dict[str, Any]]):
    """HGMMA is Hopper's, for at least 64 rows; HMMA takes 16. Exact float32 has none."""
    for report in reports:
        if report["case"] != "float32" and report["kernel"] != "_merge_kernel":
            assert {"HGMMA", "HMMA"} & set(report["instructions"]), report


def test_prompts_use_hopper_instructions(reports: list[dict[str, Any]]):
    kernels = [report for report in reports if report["kernel"] == "_chunk_kernel"]
    assert "HGMMA" in kernels[0]["instructions"]


def test_a_tile_is_copied_while_another_is_multiplied(reports: list[dict[str, Any]]):
    for report in reports:
        if report["case"] != "float32" and report["kernel"] != "_merge_kernel":
            assert report["copies_in_flight"] >= 2, report


def test_programs_fit_a_multiprocessor(reports: list[dict[str, Any]]):
    """65,536 registers and 227 KiB of shared memory; three programs for single tokens at once."""
    for report in reports:
        share = 3 if report["case"] == "Qwen3-8B, single tokens" else 1
        assert report["num_registers"] * report["num_warps"] * 32 * share <= 65_536, report
        assert report["shared_bytes"] * share <= 227 << 10, report
