"""Measure paged attention in Triton on a CUDA device: the fraction of the limit that it reaches.

Single tokens are bound by memory: bytes of keys and values per second over the read bandwidth
that a plain sum reaches here. Prompts are bound by products: the causal half's operations per
second, beside PyTorch's own attention over contiguous keys. Either way a contiguous cache (a
request is one block) shows what paging costs, and a mixed batch what it gains over its parts.
Calls are replayed from a CUDA graph, over several caches in turn as a model's layers do.

    python kernels/bench/attention_triton.py [single] [prompts] [mixed] [--dry-run]

Writes results/attention_PART.json for each part. ``--dry-run`` takes small shapes, on a CPU under
TRITON_INTERPRET=1 too: to see that the script works; its figures say nothing.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import argparse
from functools import partial
from typing import Any, NamedTuple

import torch
from common import bench_device, require_cuda, save
from torch import Tensor
from torch.nn import functional

from toolkit.cli.bench.device_timing import seconds_per_call
from toolkit.cli.bench.limits import read_rate
from toolkit.kernels.triton.attention import paged_attention

BLOCK_SIZE = 16
DTYPE = torch.bfloat16
# All caches of a graph together: far past the second-level cache (50 MB on an H100).
MEMORY_BYTES = 4 << 30


class Shape(NamedTuple):
    """A batch of equal requests."""

    batch: int
    context: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def kv_bytes(self) -> int:
        """Return the bytes of the keys and values of all contexts."""
        return 2 * self.batch * self.context * self.num_kv_heads * self.head_dim * DTYPE.itemsize

    @property
    def causal_flop(self) -> float:
        """Return the operations of a whole prompt: two products over half the pairs."""
        pairs = self.batch * self.context * (self.context + 1) / 2
        return 4 * pairs * self.num_heads * self.head_dim


QWEN3_8B, QWEN3_06B = (32, 8, 128), (16, 8, 128)
SINGLE = [
    *(Shape(batch, 4096, *QWEN3_8B) for batch in (1, 8, 32, 64, 128)),
    Shape(1, 32_768, *QWEN3_8B),
    Shape(16, 32_768, *QWEN3_8B),
    Shape(128, 512, *QWEN3_8B),
    Shape(1, 4096, *QWEN3_06B),
    Shape(256, 1024, *QWEN3_06B),
]
PROMPTS = [
    *(Shape(1, context, *QWEN3_8B) for context in (512, 1024, 2048, 4096, 8192, 16_384)),
    Shape(8, 1024, *QWEN3_8B),
    Shape(1, 4096, *QWEN3_06B),
]
DRY_SINGLE, DRY_PROMPTS = [Shape(2, 40, 4, 2, 16)], [Shape(1, 32, 4, 2, 16)]
MIXED = [(Shape(64, 4096, *QWEN3_8B), Shape(1, 2048, *QWEN3_8B))]


class Inputs(NamedTuple):
    """The op's tensors."""

    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    block_tables: Tensor
    query_starts: Tensor
    context_lens: Tensor


def make_inputs(shape: Shape, num_queries: int, block_size: int) -> Inputs:
    """Fill a cache whose blocks lie in random order."""
    blocks_each = -(-shape.context // block_size)
    num_blocks = shape.batch * blocks_each
    size = (num_blocks, shape.num_kv_heads, block_size, shape.head_dim)
    integers = partial(torch.arange, dtype=torch.int32)
    return Inputs(
        torch.randn(shape.batch * num_queries, shape.num_heads, shape.head_dim, dtype=DTYPE),
        torch.randn(size, dtype=DTYPE),
        torch.randn(size, dtype=DTYPE),
        torch.randperm(num_blocks).int().view(shape.batch, blocks_each),
        integers(shape.batch + 1) * num_queries,
        torch.full((shape.batch,), shape.context, dtype=torch.int32),
    )


def join(first: Inputs, second: Inputs) -> Inputs:
    """Make one batch of two."""
    width = max(first.block_tables.shape[1], second.block_tables.shape[1])
    shifted = second.block_tables + len(first.key_cache)
    tables = (first.block_tables, shifted)
    return Inputs(
        torch.cat((first.query, second.query)),
        torch.cat((first.key_cache, second.key_cache)),
        torch.cat((first.value_cache, second.value_cache)),
        torch.cat([functional.pad(table, (0, width - table.shape[1])) for table in tables]),
        torch.cat((first.query_starts, second.query_starts[1:] + first.query_starts[-1])),
        torch.cat((first.context_lens, second.context_lens)),
    )


def attend(inputs: Inputs) -> Tensor:
    """Call the op."""
    return paged_attention(*inputs, scale=inputs.query.shape[-1] ** -0.5)


def measure_op(shape: Shape, num_queries: int, block_size: int) -> float:
    """Return the op's seconds."""
    most = 32 if bench_device().type == "cuda" else 1
    copies = max(1, min(most, MEMORY_BYTES // shape.kv_bytes)) if num_queries == 1 else 2
    inputs = [make_inputs(shape, num_queries, block_size) for _ in range(copies)]
    return seconds_per_call([partial(attend, tensors) for tensors in inputs], bench_device())


def measure_single(shape: Shape, bandwidth: float) -> dict[str, Any]:
    """Return a row of the single tokens' table."""
    paged = measure_op(shape, 1, BLOCK_SIZE)
    contiguous = measure_op(shape, 1, shape.context)
    return {
        **shape._asdict(),
        "kv_mb": round(shape.kv_bytes / 1e6, 1),
        "us": round(paged * 1e6, 1),
        "gb_per_s": round(shape.kv_bytes / paged / 1e9),
        "fraction_of_read_bandwidth": round(shape.kv_bytes / paged / bandwidth, 3),
        "paged_over_contiguous": round(paged / contiguous, 3),
    }


def measure_prompt(shape: Shape) -> dict[str, Any]:
    """Return a row of the prompts' table."""
    paged = measure_op(shape, shape.context, BLOCK_SIZE)
    contiguous = measure_op(shape, shape.context, shape.context)
    query, keys = (
        torch.randn(shape.batch, heads, shape.context, shape.head_dim, dtype=DTYPE)
        for heads in (shape.num_heads, shape.num_kv_heads)
    )
    torch_attention = partial(
        functional.scaled_dot_product_attention, query, keys, keys, is_causal=True, enable_gqa=True
    )
    theirs = seconds_per_call([torch_attention, torch_attention], bench_device())
    return {
        **shape._asdict(),
        "us": round(paged * 1e6, 1),
        "tflop_per_s": round(shape.causal_flop / paged / 1e12, 1),
        "torch_tflop_per_s": round(shape.causal_flop / theirs / 1e12, 1),
        "paged_over_contiguous": round(paged / contiguous, 3),
    }


def measure_mixed(single: Shape, prompt: Shape) -> dict[str, Any]:
    """Return the time of a batch of both over the sum of their times."""
    parts = make_inputs(single, 1, BLOCK_SIZE), make_inputs(prompt, prompt.context, BLOCK_SIZE)
    device = bench_device()
    separate = [seconds_per_call([partial(attend, part)] * 2, device) for part in parts]
    together = seconds_per_call([partial(attend, join(*parts))] * 2, device)
    return {
        "single": single._asdict(),
        "prompt": prompt._asdict(),
        "us": round(together * 1e6, 1),
        "over_sum_of_parts": round(together / sum(separate), 3),
    }


def measure_singles(is_dry: bool) -> dict[str, Any]:
    """Measure single tokens against the read bandwidth."""
    bandwidth = read_rate(1 << 20 if is_dry else None, device=bench_device())
    shapes = DRY_SINGLE if is_dry else SINGLE
    rows = [measure_single(shape, bandwidth) for shape in shapes]
    return {"read_gb_per_s": round(bandwidth / 1e9, 1), "rows": rows}


def measure_prompts(is_dry: bool) -> dict[str, Any]:
    """Measure prompts."""
    return {"rows": [measure_prompt(shape) for shape in (DRY_PROMPTS if is_dry else PROMPTS)]}


def measure_mixes(is_dry: bool) -> dict[str, Any]:
    """Measure mixed batches."""
    mixes = list(zip(DRY_SINGLE, DRY_PROMPTS, strict=True)) if is_dry else MIXED
    return {"rows": [measure_mixed(*shapes) for shapes in mixes]}


PARTS = {"single": measure_singles, "prompts": measure_prompts, "mixed": measure_mixes}


def main() -> None:
    """Measure the parts asked for, or all, and write their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}: all by default")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    device = require_cuda(is_dry_run=arguments.dry_run)
    torch.manual_seed(0)
    torch.set_default_device(device)
    for part in arguments.parts or PARTS:
        results = PARTS[part](arguments.dry_run)
        save(f"attention_{part}", {"is_dry_run": arguments.dry_run, **results})


if __name__ == "__main__":
    main()
