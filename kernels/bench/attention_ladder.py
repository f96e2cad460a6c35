"""Measure the rungs from naive paged attention to the op on a CUDA device, single tokens alone.

    python kernels/bench/attention_ladder.py [--dry-run]

Every rung is replayed from a CUDA graph, over several caches in turn; the op is also called from
Python, which shows what launching takes. Writes results/attention_ladder.json. ``--dry-run`` takes
a small batch, on a CPU under TRITON_INTERPRET=1 too: its figures say nothing.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import argparse
import time
from functools import partial
from typing import Any

import torch
from attention_triton import Inputs, Shape, make_inputs
from common import bench_device, require_cuda, save

from toolkit.cli.bench.device_timing import seconds_per_call
from toolkit.cli.bench.limits import read_rate
from toolkit.kernels.triton.ladder import RUNGS, Rung, attend

BLOCK_SIZE = 16
SHAPES = [Shape(64, 4096, 32, 8, 128), Shape(1, 4096, 32, 8, 128)]
DRY_SHAPES = [Shape(2, 40, 4, 2, 16)]
# Tables are as wide as a model's longest sequence, here twice the context.
TABLE_CONTEXTS = 2
NUM_COPIES = 8
NUM_LAUNCHES = 200


def call(rung: Rung, inputs: Inputs) -> Any:
    """Attend with a rung."""
    query, keys, values, tables, _, contexts = inputs
    return attend(rung, query, keys, values, tables, contexts, scale=query.shape[-1] ** -0.5)


def measure(shape: Shape, num_copies: int, limit: float) -> list[dict[str, Any]]:
    """Return a row for each rung."""
    made = [make_inputs(shape, 1, BLOCK_SIZE) for _ in range(num_copies)]
    copies = [x._replace(block_tables=x.block_tables.repeat(1, TABLE_CONTEXTS)) for x in made]
    rows = []
    for rung in RUNGS:
        seconds = seconds_per_call([partial(call, rung, x) for x in copies], bench_device())
        fraction = shape.kv_bytes / seconds / limit
        row = {"rung": rung.name, "batch": shape.batch, "context": shape.context}
        rows.append({**row, "us": round(seconds * 1e6, 1), "fraction_of_limit": round(fraction, 3)})
    return rows


def launch_us(shape: Shape, num_launches: int) -> float:
    """Return the microseconds of a call of the op that Python launches, one after the other."""
    inputs = make_inputs(shape, 1, BLOCK_SIZE)
    call(RUNGS[-1], inputs)
    synchronize = torch.cuda.synchronize if bench_device().type == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    for _ in range(num_launches):
        call(RUNGS[-1], inputs)
    synchronize()
    return round((time.perf_counter() - started) / num_launches * 1e6, 1)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true")
    is_dry = parser.parse_args().dry_run
    device = require_cuda(is_dry_run=is_dry)
    torch.manual_seed(0)
    torch.set_default_device(device)
    limit = read_rate(1 << 20 if is_dry else None, device=device)
    shapes, num_copies = (DRY_SHAPES, 1) if is_dry else (SHAPES, NUM_COPIES)
    results: dict[str, Any] = {
        "is_dry_run": is_dry,
        "read_gb_per_s": round(limit / 1e9, 1),
        "rungs": [row for shape in shapes for row in measure(shape, num_copies, limit)],
        "op_launched_from_python_us": launch_us(shapes[-1], 1 if is_dry else NUM_LAUNCHES),
    }
    save("attention_ladder", results)


if __name__ == "__main__":
    main()
