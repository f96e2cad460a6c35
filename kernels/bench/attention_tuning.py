"""Try tile shapes of paged attention in Triton on a CUDA device and print the fastest.

What it prints is for kernels/ops/triton/_tuning.py: a person reads it there, no run does. Results
are written after every shape, so that what is done is not lost. ``--dry-run`` takes a small shape,
on a CPU under TRITON_INTERPRET=1 too: its figures say nothing.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import argparse
from itertools import product
from typing import Any
from unittest import mock

import torch
import triton
from attention_triton import BLOCK_SIZE, DRY_PROMPTS, DRY_SINGLE, DTYPE, Shape, measure_op
from common import require_cuda, save

from toolkit.kernels.triton import attention, attention_splits
from toolkit.kernels.triton._tuning import SPLIT_SIZE, Tiles, chunk_tiles, split_tiles

Row = dict[str, Any]
PROMPTS = [Shape(1, 4096, 32, 8, 128), Shape(1, 4096, 64, 8, 64), Shape(1, 4096, 16, 8, 256)]
SINGLE = [
    Shape(64, 4096, 32, 8, 128),
    Shape(1, 4096, 32, 8, 128),
    Shape(64, 4096, 64, 8, 64),
    Shape(64, 4096, 16, 8, 256),
]
SPLIT_SIZES = (128, 256, 512, 1024)
# Every shape is a compilation of some seconds: what cannot win is not tried.
PROMPT_TILES = [
    Tiles(rows, positions, num_warps, num_stages)
    for rows, num_warps in ((64, 4), (128, 8))
    for positions, num_stages in product((32, 64, 128), (3, 5))
]
NUM_KEPT = 5  # rows of the answer for each shape


def single_tiles(rows: int) -> list[Tiles]:
    """Return what is tried for single tokens of a group of at most ``rows`` heads."""
    return [Tiles(rows, positions, 4, stages) for positions, stages in product((32, 64), (3, 5, 7))]


def measure(shape: Shape, num_queries: int, tiles: Tiles, split: int = SPLIT_SIZE) -> list[Row]:
    """Return a row with the op's time with these tiles; none if they do not fit the device."""
    with (
        mock.patch.object(attention, "chunk_tiles", return_value=tiles),
        mock.patch.object(attention_splits, "split_tiles", return_value=tiles),
        mock.patch.object(attention_splits, "SPLIT_SIZE", split),
    ):
        try:
            seconds = measure_op(shape, num_queries, BLOCK_SIZE)
        except triton.runtime.errors.OutOfResources:
            return []
    return [{**tiles._asdict(), "split": split, "us": round(seconds * 1e6, 1)}]


def answer(shape: Shape, rows: list[Row]) -> Row:
    """Put the fastest rows beside the first, which is the table's."""
    best = sorted(rows, key=lambda row: row["us"])[:NUM_KEPT]
    return {**shape._asdict(), "table": rows[0], "best": best}


def try_prompt(shape: Shape) -> Row:
    """Try tiles of one whole prompt."""
    group = shape.num_heads // shape.num_kv_heads
    table = chunk_tiles(shape.head_dim, group, DTYPE.itemsize, shape.context)
    tried = [table, *(tiles for tiles in PROMPT_TILES if tiles != table)]
    return answer(shape, [row for x in tried for row in measure(shape, shape.context, x)])


def try_single(shape: Shape) -> Row:
    """Try tiles, then with the fastest of them sizes of splits."""
    table = split_tiles(shape.head_dim, shape.num_heads // shape.num_kv_heads, DTYPE.itemsize)
    tried = [table, *(tiles for tiles in single_tiles(table.rows) if tiles != table)]
    rows = [(row, tiles) for tiles in tried for row in measure(shape, 1, tiles)]
    _, best = min(rows, key=lambda pair: pair[0]["us"])
    others = [size for size in SPLIT_SIZES if size != SPLIT_SIZE]
    by_split = [row for size in others for row in measure(shape, 1, best, size)]
    return answer(shape, [*(row for row, _ in rows), *by_split])


def main() -> None:
    """Try all shapes and write results/attention_tuning.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true")
    is_dry = parser.parse_args().dry_run
    device = require_cuda(is_dry_run=is_dry)
    torch.manual_seed(0)
    torch.set_default_device(device)
    results: Row = {"is_dry_run": is_dry, "single_tokens": [], "prompts": []}
    for shape in DRY_SINGLE if is_dry else SINGLE:
        results["single_tokens"].append(try_single(shape))
        save("attention_tuning", results)
    for shape in DRY_PROMPTS if is_dry else PROMPTS:
        results["prompts"].append(try_prompt(shape))
        save("attention_tuning", results)


if __name__ == "__main__":
    main()
