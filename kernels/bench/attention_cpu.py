"""Measure paged attention in C++ against the reference: GB/s of single tokens, GFLOP/s of prompts.

A single token reads its context's keys and values once. They come from memory, by way of several
caches used in turn, as a model's layers do. A prompt's operations are those of the causal half.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from common import save, spread
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.cpu.attention import paged_attention
from toolkit.kernels.cpu.build import compile_library
from toolkit.kernels.cpu.levels import machine_level
from toolkit.kernels.cpu.library import Library

BLOCK_SIZE = 16
# Past the caches of most machines; a shared third level may still hold a part.
MEMORY_BYTES = 512 << 20
REPEATS = 7


class Shape(NamedTuple):
    """A batch of equal requests."""

    batch: int
    context: int
    num_heads: int
    num_kv_heads: int
    head_dim: int


SINGLE = [
    Shape(batch, context, *heads)
    for heads in ((16, 8, 128), (12, 12, 64))
    for batch, context in ((1, 1000), (1, 2000), (16, 500), (64, 100), (64, 1000))
]
PROMPTS = [
    Shape(1, 2048, 16, 8, 128),
    Shape(1, 256, 16, 8, 128),
    Shape(8, 256, 16, 8, 128),
    Shape(1, 512, 12, 12, 64),
    Shape(8, 128, 12, 12, 64),
]


def make_inputs(shape: Shape, num_queries: int, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    """Return the op's tensors, once per cache, their blocks in random order."""
    blocks_each = -(-shape.context // BLOCK_SIZE)
    num_blocks = shape.batch * blocks_each
    size = (num_blocks, shape.num_kv_heads, BLOCK_SIZE, shape.head_dim)
    cache_bytes = 2 * torch.Size(size).numel() * dtype.itemsize
    copies = 1 if num_queries > 1 else max(1, min(64, MEMORY_BYTES // cache_bytes))
    key = torch.randn(size).to(dtype)
    query = torch.randn(shape.batch * num_queries, shape.num_heads, shape.head_dim).to(dtype)
    where = (
        torch.randperm(num_blocks, dtype=torch.int32).view(shape.batch, blocks_each),
        torch.arange(shape.batch + 1, dtype=torch.int32) * num_queries,
        torch.full((shape.batch,), shape.context, dtype=torch.int32),
    )
    return [(query, key.clone(), key.flip(0), *where) for _ in range(copies)]


def measure(attend: Callable[..., Tensor], inputs: list[tuple[Tensor, ...]]) -> dict[str, float]:
    """Return ms per call."""
    scale = inputs[0][0].shape[-1] ** -0.5
    attend(*inputs[0], scale=scale)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for tensors in inputs:
            attend(*tensors, scale=scale)
        times.append((time.perf_counter() - start) / len(inputs) * 1e3)
    return spread(times)


def measure_both(cpu: Callable[..., Tensor], shape: Shape, *, prompt: bool) -> list[dict[str, Any]]:
    """Return a row per dtype: ms of both ops and the rate of the C++ op."""
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = make_inputs(shape, shape.context if prompt else 1, dtype)
        ours, theirs = measure(cpu, inputs), measure(reference.paged_attention, inputs)
        seconds = ours["median"] / 1e3
        pairs = shape.batch * shape.num_heads * shape.context * (shape.context + 1) / 2
        read = 2 * shape.batch * shape.num_kv_heads * shape.context * shape.head_dim
        rate = (
            {"gflop_per_s": round(4 * pairs * shape.head_dim / seconds / 1e9, 1)}
            if prompt
            else {"gb_per_s": round(read * dtype.itemsize / seconds / 1e9, 2)}
        )
        row = {"dtype": str(dtype).removeprefix("torch."), **shape._asdict(), **rate}
        rows.append({**row, "cpu_ms": ours, "reference_ms": theirs})
    return rows


def main() -> None:
    """Measure all shapes and write results/attention_cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    level = machine_level()
    library = Library(compile_library(level))
    library.set_num_threads(threads)
    cpu = partial(paged_attention, library)
    single = [row for shape in SINGLE for row in measure_both(cpu, shape, prompt=False)]
    prompts = [row for shape in PROMPTS for row in measure_both(cpu, shape, prompt=True)]
    save("attention_cpu", {"level": level.name, "single_tokens": single, "prompts": prompts})


if __name__ == "__main__":
    main()
