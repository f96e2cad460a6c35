"""Where steps of single tokens are laid out: buffers that never move, filled up to a bucket's size.

A CUDA graph replays kernels with the addresses and shapes that they were captured with. So a step
in which every request computes one token is written into the same tensors each time, and filled up
to one of few sizes with rows that disturb nobody: each is a request of one token, whose key and
value go to a spare slot of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.kernels.transfers import staged, to_device
from toolkit.models import FlatBatch
from toolkit.runtime.rows import SingleTokens

__all__ = ["DecodeBuffers", "bucket_sizes"]

_STEP = 8
_NOTHING: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
_NO_TOKENS = SingleTokens(_NOTHING, _NOTHING, _NOTHING, np.zeros((0, 1), dtype=np.int32))


def bucket_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """Return the sizes that batches are filled up to.

    >>> bucket_sizes(20)
    (1, 2, 4, 8, 16, 20)
    """
    sizes = [1, 2, 4, *range(_STEP, max_num_seqs + 1, _STEP), max_num_seqs]
    return tuple(sorted({size for size in sizes if size <= max_num_seqs}))


class DecodeBuffers:
    """The flat batch of a step of single tokens, allocated once.

    Args:
        max_num_seqs: Requests in the largest step.
        max_blocks: Blocks of the longest request.
        block_size: Tokens per block.
        spare_slots: One for every row, none of which belongs to a request.
        device: Where the decoder is.
    """

    def __init__(
        self,
        *,
        max_num_seqs: int,
        max_blocks: int,
        block_size: int,
        spare_slots: range,
        device: torch.device,
    ) -> None:
        self.sizes = bucket_sizes(max_num_seqs)
        self._spare_slots = np.array(spare_slots, dtype=np.int64)
        self._spare_blocks = (self._spare_slots // block_size).astype(np.int32)
        options: dict[str, Any] = {"device": device, "dtype": torch.int64}
        self._token_ids = torch.zeros(max_num_seqs, **options)
        self._positions = torch.zeros(max_num_seqs, **options)
        self._slots = torch.zeros(max_num_seqs, **options)
        self._logit_rows = torch.arange(max_num_seqs, **options)
        options["dtype"] = torch.int32
        self._block_tables = torch.zeros(max_num_seqs, max_blocks, **options)
        self._query_starts = torch.arange(max_num_seqs + 1, **options)
        self._context_lens = torch.ones(max_num_seqs, **options)
        self.device = device

    def size_for(self, count: int) -> int:
        """Return the size of the bucket that holds so many rows."""
        return next(size for size in self.sizes if size >= count)

    def batch(self, size: int) -> FlatBatch:
        """Return the batch of a bucket: always the same tensors."""
        return FlatBatch(
            token_ids=self._token_ids[:size],
            positions=self._positions[:size],
            slots=self._slots[:size],
            block_tables=self._block_tables[:size],
            query_starts=self._query_starts[: size + 1],
            context_lens=self._context_lens[:size],
            logit_rows=self._logit_rows[:size],
        )

    def fill(
        self, size: int, tokens: SingleTokens = _NO_TOKENS, token_ids: Tensor | None = None
    ) -> None:
        """Write a step into a bucket, and padding behind it.

        Args:
            size: Of the bucket.
            tokens: The step; nothing but padding by default.
            token_ids: [requests] int64 on the device, where the host does not know them.
        """
        count = len(tokens.positions)
        num_spare = size - count
        spare_slots, spare_blocks = self._spare_slots[:num_spare], self._spare_blocks[:num_spare]
        nothing: NDArray[np.int64] = np.zeros(num_spare, dtype=np.int64)
        self._write(self._positions, np.concatenate((tokens.positions, nothing)))
        self._write(self._slots, np.concatenate((tokens.slots, spare_slots)))
        contexts = np.concatenate((tokens.positions, nothing)).astype(np.int32) + 1
        self._write(self._context_lens, contexts)
        width = tokens.block_tables.shape[1]
        tables = np.zeros((size, width), dtype=np.int32)
        tables[:count], tables[count:, 0] = tokens.block_tables, spare_blocks
        self._block_tables[:size, :width] = to_device(torch.from_numpy(tables), self.device)
        if token_ids is None:
            self._write(self._token_ids, np.concatenate((tokens.token_ids, nothing)))
        else:
            self._token_ids[:count] = token_ids
            self._token_ids[count:size] = 0

    def _write(self, buffer: Tensor, values: NDArray[np.generic]) -> None:
        host = staged(torch.from_numpy(values), self.device)
        buffer[: len(values)].copy_(host, non_blocking=True)
