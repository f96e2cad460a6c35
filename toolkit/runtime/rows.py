"""The block tables of running requests, one row each, and the flat batch made from a plan.

Request path 5/8: from engine.engine through model_runner. Rows live on the host in NumPy; a step
turns them into index tensors with a handful of vectorised operations.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from toolkit.engine.plan import StepPlan
from toolkit.models import FlatBatch

__all__ = ["RowTable"]


class RowTable:
    """A row of block ids for every running request.

    Args:
        num_rows: Requests that can run at once.
        max_blocks: Blocks of the longest request.
        block_size: Tokens per block.
        device: Where the flat batches go.
    """

    def __init__(
        self, num_rows: int, max_blocks: int, block_size: int, device: torch.device
    ) -> None:
        self._block_ids: NDArray[np.int32] = np.zeros((num_rows, max_blocks), dtype=np.int32)
        self._lengths = [0] * num_rows
        self._rows: dict[str, int] = {}
        self._free = list(range(num_rows - 1, -1, -1))
        self._counting = np.arange(num_rows + 1)
        self._block_size = block_size
        self._device = device

    def apply(self, plan: StepPlan) -> None:
        """Take in the plan's preemptions, admissions, new blocks and copies."""
        for request_id in plan.preempted_ids:
            self.release(request_id)
        for chunk in plan.chunks:
            if chunk.is_first:
                self.release(chunk.request_id)  # left over only if an earlier step broke off
                self._rows[chunk.request_id] = row = self._free.pop()
                self._lengths[row] = 0
            if chunk.new_block_ids:
                row = self._rows[chunk.request_id]
                start = self._lengths[row]
                self._lengths[row] = end = start + len(chunk.new_block_ids)
                self._block_ids[row, start:end] = chunk.new_block_ids
        for copy in plan.copies:
            blocks = self._block_ids[self._rows[copy.request_id]]
            blocks[blocks == copy.source_id] = copy.target_id

    def release(self, request_id: str) -> None:
        """Free a request's row, if it has one."""
        row = self._rows.pop(request_id, None)
        if row is not None:
            self._free.append(row)

    def flat_batch(self, plan: StepPlan) -> FlatBatch:
        """Return the plan's tokens as the decoder takes them."""
        count = len(plan.chunks)
        names, firsts, lasts, token_ids, _, _, samples = zip(*plan.chunks, strict=True)
        rows = np.array([self._rows[name] for name in names])
        starts, ends = np.array(firsts), np.array(lasts)
        if plan.num_tokens == count:  # a token each, which needs no look for whose it is
            query_starts, owners, positions = self._counting[: count + 1], rows, starts
        else:
            query_starts = np.zeros(count + 1, dtype=np.int64)
            np.cumsum(ends - starts, out=query_starts[1:])
            owner: NDArray[np.int64] = np.repeat(np.arange(count), ends - starts)
            # Position of each token: its place in the batch, shifted by where its chunk starts.
            positions = np.arange(plan.num_tokens) + (starts - query_starts[:-1])[owner]
            owners = rows[owner]
        size = self._block_size
        index, offset = np.divmod(positions, size)
        slots = self._block_ids[owners, index].astype(np.int64) * size + offset
        max_blocks = int(-(-ends.max() // size))
        logit_rows: NDArray[np.int64] = query_starts[1:] - 1
        if not all(samples):
            logit_rows = logit_rows[np.array(samples)]
        return FlatBatch(
            token_ids=self._tensor(np.array([*chain.from_iterable(token_ids)])),
            positions=self._tensor(positions),
            slots=self._tensor(slots),
            block_tables=self._tensor(self._valid_blocks(rows, ends, max_blocks)),
            query_starts=self._tensor(query_starts.astype(np.int32)),
            context_lens=self._tensor(ends.astype(np.int32)),
            logit_rows=self._tensor(logit_rows),
        )

    def _valid_blocks(
        self, rows: NDArray[np.int64], ends: NDArray[np.int64], max_blocks: int
    ) -> NDArray[np.int32]:
        """Return [requests, max_blocks]; entries past a context are 0, any valid block."""
        blocks = self._block_ids[rows, :max_blocks]
        held = np.arange(max_blocks) < -(-ends // self._block_size)[:, None]
        return np.where(held, blocks, np.int32(0))

    def _tensor(self, values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
