"""What the first process tells the others to do, in the order in which it does the same itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.cache.storage import KVLayout
from toolkit.models import DecoderSpec, FlatBatch

__all__ = ["Begin", "CopyBlocks", "DropCaches", "Forward", "Join", "Logits", "OpenCache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Load a part of a model."""

    rank: int
    size: int
    spec: DecoderSpec
    family: str  # by name: whose map of tensor names
    folder: Path
    dtype: torch.dtype
    device: torch.device
    kernels: str
    num_threads: int | None


@dataclass(frozen=True, slots=True)
class Join:
    """Meet the other processes in a file."""

    path: str


@dataclass(frozen=True, slots=True)
class OpenCache:
    """Make a KV cache."""

    key: int
    layout: KVLayout
    num_blocks: int


@dataclass(frozen=True, slots=True)
class DropCaches:
    """Give KV caches back."""

    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CopyBlocks:
    """Copy blocks of a cache."""

    key: int
    source_ids: Sequence[int]
    target_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Forward:
    """Run the layers over a batch; where they are shown, the first process sends what became of it.

    The batch's logit_rows are left out: the decoder does not read them.
    """

    key: int  # of the KV cache
    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: NDArray[np.int64]
    block_tables: NDArray[np.int32]
    query_starts: NDArray[np.int32]
    context_lens: NDArray[np.int32]
    rows: NDArray[np.int64] | None
    is_shown: bool

    @classmethod
    def of(cls, key: int, batch: FlatBatch, rows: Tensor | None, *, is_shown: bool) -> Forward:
        """Write a batch down."""
        return cls(
            key,
            batch.token_ids.cpu().numpy(),
            batch.positions.cpu().numpy(),
            batch.slots.cpu().numpy(),
            batch.block_tables.cpu().numpy(),
            batch.query_starts.cpu().numpy(),
            batch.context_lens.cpu().numpy(),
            None if rows is None else rows.cpu().numpy(),
            is_shown,
        )

    def batch(self, device: torch.device) -> FlatBatch:
        """Return the batch as the decoder takes it."""

        def tensor(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(values).to(device)

        return FlatBatch(
            token_ids=tensor(self.token_ids),
            positions=tensor(self.positions),
            slots=tensor(self.slots),
            block_tables=tensor(self.block_tables),
            query_starts=tensor(self.query_starts),
            context_lens=tensor(self.context_lens),
            logit_rows=torch.empty(0, dtype=torch.int64, device=device),
        )


@dataclass(frozen=True, slots=True)
class Logits:
    """Score the vocabulary for what the last ``Forward`` returned, or for rows that are sent."""

    num_rows: int | None  # how many are sent; None for none
