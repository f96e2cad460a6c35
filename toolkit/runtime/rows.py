"""The block tables of running requests, one row each, and the flat batch made from a plan.

Request path 5/8: from engine.engine through model_runner. Rows live on the host in NumPy; a step
turns them into index tensors with a handful of vectorised operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from toolkit.engine.plan import StepPlan
from toolkit.kernels.transfers import to_device
from toolkit.models import FlatBatch
from toolkit.request import Request
from toolkit.sampling import RowState

__all__ = ["RowTable", "SingleTokens", "sampled_rows"]


def sampled_rows(plan: StepPlan, requests: Mapping[str, Request]) -> list[RowState]:
    """Return what the sampler is told of the plan's samples, in their order."""
    return [
        RowState(requests[chunk.request_id], chunk.end) for chunk in plan.chunks if chunk.samples
    ]


class SingleTokens(NamedTuple):
    """A step that computes one token of each of its requests, on the host."""

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: NDArray[np.int64]
    block_tables: NDArray[np.int32]  # [requests, blocks of the longest]


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
        rows = self.rows_of(names)
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
            logit_rows = logit_rows[self._tensor(np.flatnonzero(samples))]
        # Past a context lie ids of earlier requests, or 0: any block will do.
        tables = self._block_ids[rows, : -(-max(lasts) // self._block_size)]
        return FlatBatch(
            token_ids=self._tensor(np.array([*chain.from_iterable(token_ids)])),
            positions=self._tensor(positions),
            slots=self._tensor(self._slots(owners, positions)),
            block_tables=self._tensor(tables),
            query_starts=query_starts,
            context_lens=self._tensor(ends.astype(np.int32)),
            logit_rows=logit_rows,
        )

    def single_tokens(self, plan: StepPlan) -> SingleTokens:
        """Return the plan's tokens, where each chunk is of one."""
        names, firsts, _, token_ids, _, _, _ = zip(*plan.chunks, strict=True)
        rows, positions = self.rows_of(names), np.array(firsts)
        return SingleTokens(
            np.array([*chain.from_iterable(token_ids)]),
            positions,
            self._slots(rows, positions),
            self._block_ids[rows, : max(firsts) // self._block_size + 1],
        )

    def _slots(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the cache has each token, by its row and its position."""
        index, offset = np.divmod(positions, self._block_size)
        return self._block_ids[rows, index].astype(np.int64) * self._block_size + offset

    def rows_of(self, request_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the number of each request's row."""
        return np.array([self._rows[request_id] for request_id in request_ids])

    def _tensor(self, values: NDArray[np.generic]) -> torch.Tensor:
        return to_device(torch.from_numpy(np.ascontiguousarray(values)), self._device)
