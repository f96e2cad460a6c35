"""Choose tile shapes from shapes alone, so that a launch needs no measurement and no device read.

The numbers hold for sm_90 by reasoning, not by measurement: tiles fill the tensor cores' shapes,
and accumulators fit the registers without spills (tests/kernels/triton/test_compiled_attention.py).
"""

from __future__ import annotations

from typing import NamedTuple

import triton

__all__ = [
    "MAX_SPLITS",
    "SPLIT_SIZE",
    "Tiles",
    "chunk_tiles",
    "invariant_tiles",
    "num_pieces",
    "split_tiles",
]

# A single token's context is cut into splits of this many positions: 4096 positions of 8 heads
# give 128 programs, about one for each of an H100's 132 multiprocessors.
SPLIT_SIZE = 256
# Contexts beyond SPLIT_SIZE * MAX_SPLITS take longer splits: partial results stay small.
MAX_SPLITS = 64
# A tile's block ids are loaded before its keys and values, and the compiler shares the stages among
# both: of 5, ids are 4 steps ahead of the products, keys and values 2. With 3 or 4 stages a tile's
# loads would only start when the products of the tile before it are done.
_NUM_STAGES = 5
# Programs of a launch for single tokens. Where a table is much wider than the contexts, as in a
# captured graph, most programs find nothing to do, and each still costs its start.
_MAX_PROGRAMS = 4096


class Tiles(NamedTuple):
    """The shape of a program's work, and how the compiler spreads it."""

    rows: int  # pairs of a query and a head of one group; the least that `tl.dot` takes is 16
    positions: int  # keys a step of the loop
    num_warps: int
    num_stages: int  # tiles of keys and values under way

    def options(self) -> dict[str, int]:
        """Return the arguments of a launch that say so."""
        return {
            "ROWS": self.rows,
            "TILE": self.positions,
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
        }


def chunk_tiles(head_dim: int, group: int, itemsize: int, mean_queries: int) -> Tiles:
    """Choose for requests that have ``mean_queries`` queries on average."""
    wanted = min(128, triton.next_power_of_2(group * mean_queries))
    return _chunk_tiles(head_dim, group, itemsize, wanted)


def invariant_tiles(head_dim: int, group: int, itemsize: int) -> Tiles:
    """Choose one shape for every batch: 64 rows are the least that Hopper's own products take."""
    return _chunk_tiles(head_dim, group, itemsize, 64)


def _chunk_tiles(head_dim: int, group: int, itemsize: int, wanted: int) -> Tiles:
    is_narrow = head_dim <= 128
    rows = _least_rows(group)
    if itemsize == 4:  # exact float32 has no tensor cores: operands and sums fill the registers
        return Tiles(rows, 32 if is_narrow else 16, 8, 2)
    rows = max(rows, wanted)
    return Tiles(rows, 64 if is_narrow else 32, 4 if rows <= 64 else 8, _NUM_STAGES)


def split_tiles(head_dim: int, group: int, itemsize: int) -> Tiles:
    """Choose for single tokens, whose time is that of reading keys and values."""
    is_narrow = head_dim <= 128
    rows = _least_rows(group)
    if itemsize == 4:
        return Tiles(rows, 32 if is_narrow else 16, 4 if rows <= 32 else 8, 2)
    if rows <= 32:
        return Tiles(rows, 64 if is_narrow else 32, 4, _NUM_STAGES)
    return Tiles(rows, 32, 8, _NUM_STAGES)


def num_pieces(num_splits: int, num_requests: int, num_kv_heads: int) -> int:
    """Return how many programs share the splits of one request's head."""
    return max(1, min(num_splits, _MAX_PROGRAMS // (num_requests * num_kv_heads)))


def _least_rows(group: int) -> int:
    return max(16, triton.next_power_of_2(group))
