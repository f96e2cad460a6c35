"""Attention as machine code for sm_90: no GPU is needed to see that it is what it should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Of the cases of compile_attention.py, those whose requests have many queries.
PROMPTS = ("Qwen3-8B, a prompt", "Gemma 2 9B", "gpt-oss", "ALiBi")
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


def products(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the kernels that multiply matrices in half precision."""
    merge = "_merge_splits_kernel"
    return [x for x in reports if x["case"] != "float32" and x["name"] != merge]


def test_every_kernel_is_compiled(reports: list[dict[str, Any]]):
    names = {report["name"] for report in reports}
    assert names == {"_chunk_kernel", "_split_kernel", "_merge_splits_kernel"}


def test_no_register_is_spilled(reports: list[dict[str, Any]]):
    assert [report for report in reports if report["spilled_bytes"]] == []


def test_products_run_on_tensor_cores(reports: list[dict[str, Any]]):
    assert [report for report in products(reports) if not report["products"]] == []


def test_prompts_use_the_products_of_a_warp_group(reports: list[dict[str, Any]]):
    """They take 64 rows at least, and are the only ones that reach Hopper's full rate."""
    prompts = [x for x in reports if x["name"] == "_chunk_kernel" and x["case"] in PROMPTS]
    assert len(prompts) == len(PROMPTS)
    for report in prompts:
        assert all(product.startswith("wgmma.m64") for product in report["products"]), report


def test_a_tile_is_copied_while_another_is_multiplied(reports: list[dict[str, Any]]):
    assert [report for report in products(reports) if report["copies_in_flight"] < 2] == []


def test_programs_fit_a_multiprocessor(reports: list[dict[str, Any]]):
    """65,536 registers and 227 KiB of shared memory; three programs for single tokens at once."""
    for report in reports:
        share = 3 if report["case"] == "Qwen3-8B, single tokens" else 1
        assert report["registers"] * report["num_warps"] * 32 * share <= 65_536, report
        assert report["shared_bytes"] * share <= 227 << 10, report
