"""Measure the row ops and sampling: C++ against plain PyTorch, microseconds a call.

Shapes of a Llama of 160 M parameters (12 heads of 64, MLP of 2048) in bfloat16 at 1, 32 and 512
tokens; sampling over vocabularies of 4,096 to 152,000. Calls of both alternate; medians.
Goal: no small call above 6 us, wrapper included.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from common import save
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.cpu.build import compile_library
from toolkit.kernels.cpu.levels import machine_level
from toolkit.kernels.cpu.library import Library
from toolkit.kernels.cpu.rows import RowOps
from toolkit.kernels.cpu.sampling import SamplingOps

HIDDEN, HEADS, HEAD_DIM, MLP, BLOCK_SIZE = 768, 12, 64, 2048, 16
NUM_TOKENS = (1, 32, 512)
SAMPLED = ((1, 32_000), (64, 4_096), (32, 32_000), (1, 152_000), (32, 152_000))
# A layer's inputs alternate between calls, as a model's do; they stay in the second-level cache.
MEASURE_S = 0.25


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Return seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def row_cases(num_tokens: int) -> Iterator[tuple[str, tuple, dict]]:
    """Yield an op's name, its arguments and its keywords."""
    x, residual, weight = (normal(n, HIDDEN) for n in (num_tokens, num_tokens, 1))
    qkv = normal(num_tokens, 3 * HEADS, HEAD_DIM)
    query, key, value = qkv.split(HEADS, dim=1)
    angles = normal(num_tokens, HEAD_DIM // 2, dtype=torch.float32)
    turn = angles.cos(), angles.sin()
    num_blocks = 2 * (num_tokens // BLOCK_SIZE + 1)
    cache = [normal(num_blocks, HEADS, BLOCK_SIZE, HEAD_DIM) for _ in range(2)]
    slots = torch.randperm(num_blocks * BLOCK_SIZE, generator=torch.Generator().manual_seed(0))
    slots = slots[:num_tokens]
    norms = {"head_norms": (normal(HEAD_DIM), normal(HEAD_DIM), 1e-6)}
    yield "rms_norm", (x, weight[0], 1e-6), {}
    yield "add_rms_norm", (x, residual, weight[0], 1e-6), {}
    yield "add_layer_norm", (x, residual, weight[0], weight[0], 1e-6), {}
    yield "silu_mul", (normal(num_tokens, 2 * MLP),), {}
    yield "gelu_mul", (normal(num_tokens, 2 * MLP), "tanh"), {}
    yield "rotary", (query, key, *turn), {}
    yield "write_kv", (key, value, *cache, slots), {}
    yield "rotary_write_kv", (query, key, value, *turn, *cache, slots), {}
    yield "rotary_write_kv, head norms", (query, key, value, *turn, *cache, slots), norms


def sampling_cases(num_rows: int, vocab_size: int) -> Iterator[tuple[str, tuple, dict]]:
    """Yield an op's name, its arguments and its keywords."""
    logits = 3 * normal(num_rows, vocab_size, dtype=torch.float32)
    keys = torch.arange(num_rows) * 0x9E3779B97F4A7C1 + 12345
    cut = logits.masked_fill(logits < logits.topk(50, dim=1).values[:, -1:], -torch.inf)
    yield "argmax", (logits,), {}
    yield "race", (logits, keys), {}
    yield "race, top-k 50", (cut, keys), {}
    everything, fifty = (torch.full((num_rows,), k) for k in (vocab_size, 50))
    most = torch.full((num_rows,), 0.95)
    how = {"top_k": everything, "max_top_k": vocab_size, "top_p": None, "min_p": None}
    how_fifty = {**how, "top_k": fifty, "max_top_k": 50}
    yield "cut_unlikely, top-p 0.95, flat", (logits,), {**how, "top_p": most}
    yield "cut_unlikely, top-p 0.95, steep", (3 * logits,), {**how, "top_p": most}
    yield "cut_unlikely, top-k 50", (logits,), how_fifty
    yield "cut_unlikely, both, steep", (3 * logits,), {**how_fifty, "top_p": most}


def call_once(
    op: Callable[..., object], buffer: Tensor | None, first: Tensor, others: list, keywords: dict
) -> None:
    """Call an op; with a buffer, on a copy of its first argument."""
    op(first if buffer is None else buffer.copy_(first), *others, **keywords)


def alternate(calls: list[Callable[[], object]]) -> list[float]:
    """Return the median time of each call in us."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end_s = time.perf_counter() + MEASURE_S
    while len(times[0]) < 5 or time.perf_counter() < end_s:
        for call, own in zip(calls, times, strict=True):
            call()  # warms the inputs again after the other's call
            start_s = time.perf_counter()
            call()
            own.append(1e6 * (time.perf_counter() - start_s))
    return [round(statistics.median(own), 1) for own in times]


def main() -> None:
    """Measure everything and write results/row_ops_cpu.json."""
    level = machine_level()
    library = Library(compile_library(level))
    library.set_num_threads(torch.get_num_threads())
    rows, sampling = RowOps(library), SamplingOps(library)
    table = []
    cases = [(n, "tokens", case) for n in NUM_TOKENS for case in row_cases(n)]
    for num_rows, vocab_size in SAMPLED:
        for case in sampling_cases(num_rows, vocab_size):
            cases.append((num_rows, f"rows of {vocab_size}", case))
    for count, unit, (label, args, keywords) in cases:
        name = label.split(",")[0]
        ours, theirs = (
            getattr(rows, name, None) or getattr(sampling, name),
            getattr(reference, name),
        )
        first, *others = args
        # The C++ cuts in place: both get a fresh copy, which is in their time.
        buffer = torch.empty_like(first) if name == "cut_unlikely" else None
        cpu_us, reference_us = alternate(
            [partial(call_once, op, buffer, first, others, keywords) for op in (ours, theirs)]
        )
        table.append(
            {
                "op": label,
                "shape": f"{count} {unit}",
                "cpu_us": cpu_us,
                "reference_us": reference_us,
            }
        )
    save("row_ops_cpu", {"level": level.name, "dtype": "bfloat16", "ops": table})


if __name__ == "__main__":
    with torch.inference_mode():
        main()
