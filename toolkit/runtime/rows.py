"""The block tables of running requests, one row each, and the flat batch made from a plan.

Request path 5/8: from engine.engine through model_runner. Rows live on the host in NumPy; a step
turns them into index tensors with a handful of vectorised operations.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        self.num_rows, self.max_blocks = num_rows, max_blocks
        self._block_ids: NDArray[np.int32] = np.zeros((num_rows, max_blocks), dtype=np.int32)
        self._lengths = [0] * num_rows
        self._rows: dict[str, int] = {}
        self._num_found = [0] * num_rows  # tokens that were there when the row began
        self._free = list(range(num_rows - 1, -1, -1))
        self._counting = torch.arange(num_rows, device=device)
        self._starts = torch.arange(num_rows + 1, dtype=torch.int32, device=device)
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
                self._num_found[row] = chunk.start
            if chunk.new_block_ids:
                row = self._rows[chunk.request_id]
                start = self._lengths[row]
                self._lengths[row] = end = start + len(chunk.new_block_ids)
                self._block_ids[row, start:end] = chunk.new_block_ids
        for copy in plan.copies:
            blocks = self._block_ids[self._rows[copy.request_id]]
            blocks[blocks == copy.source_id] = copy.target_id

    def open(self, request_id: str, block_ids: Sequence[int], num_found: int) -> None:
        """Give a request a row with these blocks; ``num_found`` of its tokens it found there."""
        self._rows[request_id] = row = self._free.pop()
        self._num_found[row] = num_found
        self._lengths[row] = len(block_ids)
        self._block_ids[row, : len(block_ids)] = block_ids

    def release(self, request_id: str) -> None:
        """Free a request's row, if it has one."""
        row = self._rows.pop(request_id, None)
        if row is not None:
            self._free.append(row)

    def block_ids(self, request_id: str, num_tokens: int) -> list[int]:
        """Return the blocks that hold a request's first tokens."""
        row = self._block_ids[self._rows[request_id]]
        ids: list[int] = row[: -(-num_tokens // self._block_size)].tolist()
        return ids

    def num_found(self, request_id: str) -> int:
        """Return how many tokens a request found computed when its row began."""
        return self._num_found[self._rows[request_id]]

    def flat_batch(self, plan: StepPlan) -> FlatBatch:
        """Return the plan's tokens as the decoder takes them."""
        count = len(plan.chunks)
        names, firsts, lasts, token_ids, _, _, samples = zip(*plan.chunks, strict=True)
        rows = np.array([self._rows[name] for name in names])
        starts, ends = np.array(firsts), np.array(lasts)
        if plan.num_tokens == count:  # a token each, which needs no look for whose it is
            owners, positions = rows, starts
            query_starts, logit_rows = self._starts[: count + 1], self._counting[:count]
        else:
            lengths = ends - starts
            firsts_in_batch = np.concatenate(([0], lengths.cumsum()))
            owner: NDArray[np.int64] = np.repeat(np.arange(count), lengths)
            # Position of each token: its place in the batch, shifted by where its chunk starts.
            positions = np.arange(plan.num_tokens) + (starts - firsts_in_batch[:-1])[owner]
            owners = rows[owner]
            query_starts = self._tensor(firsts_in_batch.astype(np.int32))
            logit_rows = self._tensor(firsts_in_batch[1:] - 1)
        if not all(samples):
            logit_rows = logit_rows[torch.tensor(samples, device=self._device)]
        index, offset = np.divmod(positions, self._block_size)
        slots = self._block_ids[owners, index].astype(np.int64) * self._block_size + offset
        # Past a context lie ids of earlier requests, or 0: any block will do.
        tables = self._block_ids[rows, : -(-max(lasts) // self._block_size)]
        return FlatBatch(
            token_ids=self._tensor(np.array([*chain.from_iterable(token_ids)])),
            positions=self._tensor(positions),
            slots=self._tensor(slots),
            block_tables=self._tensor(tables),
            query_starts=query_starts,
            context_lens=self._tensor(ends.astype(np.int32)),
            logit_rows=logit_rows,
        )

    def _tensor(self, values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
