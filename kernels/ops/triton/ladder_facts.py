"""What each rung of ladder.py asks of a GPU: counted from shapes, and read from its machine code.

Run as a program, without TRITON_INTERPRET, it prints the second as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import triton

from toolkit.kernels.triton._tuning import MAX_SPLITS, SPLIT_SIZE
from toolkit.kernels.triton.ladder import RUNGS, TILE, Rung, attend

__all__ = ["Batch", "Demand", "compile_rungs", "demand"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests with a token each, and the model's heads; numbers of 16 bits."""

    num_requests: int
    context: int
    table_positions: int  # that a row of the block table has room for
    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    block_size: int = 16

    @property
    def kv_bytes(self) -> int:
        """Bytes of the keys and values of all contexts: what must be read at least."""
        return 4 * self.num_requests * self.context * self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Demand:
    """What a launch does; bytes are those that programs ask for, from caches or from memory."""

    num_programs: int
    num_steps: int  # of the loop, in the program that has the most
    num_bytes: int
    flops: int  # of attention itself, without the rows that fill up a tensor core

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.num_bytes


def demand(rung: Rung, batch: Batch) -> Demand:
    """Count what a rung does for a batch.

    >>> batch = Batch(num_requests=1, context=4096, table_positions=8192)
    >>> [demand(rung, batch).num_programs for rung in (RUNGS[0], RUNGS[1], RUNGS[-1])]
    [32, 8, 128]
    """
    group = batch.num_heads // batch.num_kv_heads
    num_splits = 1
    if rung.is_split:
        most = min(MAX_SPLITS, triton.cdiv(batch.table_positions, SPLIT_SIZE))
        num_splits = min(most, triton.cdiv(batch.context, SPLIT_SIZE))
    num_walkers = batch.num_kv_heads if rung.is_grouped else batch.num_heads
    walked = batch.context if rung.is_skipping else batch.table_positions
    tile = TILE if rung.is_tiled else batch.block_size
    num_bytes = batch.kv_bytes if rung.is_grouped else batch.kv_bytes * group
    if num_splits > 1:  # written, and read again by the merge, in float32
        parts = batch.num_requests * batch.num_heads * num_splits
        num_bytes += 2 * 4 * parts * (batch.head_dim + 2)
    return Demand(
        num_programs=batch.num_requests * num_walkers * num_splits,
        num_steps=triton.cdiv(triton.cdiv(walked, num_splits), tile),
        num_bytes=num_bytes,
        flops=4 * batch.num_requests * batch.context * batch.num_heads * batch.head_dim,
    )


def compile_rungs() -> list[dict[str, Any]]:
    """Compile every rung for an H100 in a process of its own; return what its kernels take."""
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", __name__], env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"the rungs cannot be compiled for an H100 here: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def _compiled(rung: Rung, batch: Batch) -> list[dict[str, Any]]:
    from toolkit.kernels.triton.ahead_of_time import compiled, resources

    def empty(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    num_blocks = batch.table_positions // batch.block_size
    cache = empty(1024, batch.num_kv_heads, batch.block_size, batch.head_dim, dtype=torch.bfloat16)
    query = empty(batch.num_requests, batch.num_heads, batch.head_dim, dtype=torch.bfloat16)
    where = empty(batch.num_requests, num_blocks), empty(batch.num_requests)
    call = partial(attend, rung, query, cache, cache, *where, scale=batch.head_dim**-0.5)
    return [{"rung": rung.name, **resources(kernel)} for kernel in compiled(call)]


if __name__ == "__main__":
    qwen = Batch(num_requests=64, context=4096, table_positions=8192)
    json.dump([row for rung in RUNGS for row in _compiled(rung, qwen)], sys.stdout)
