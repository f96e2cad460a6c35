"""The tensors behind the block ids: keys and values of every layer, and how many fit.

One block of one layer is ``[num_kv_heads, block_size, head_dim]``, contiguous per head, so that
attention reads a head's keys of a block in one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.errors import InvalidConfig
from toolkit.kernels.memory import untouched_zeros
from toolkit.kernels.transfers import to_device

__all__ = ["KVLayout", "KVStorage"]

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class KVLayout:
    """Shape of the cache of one model.

    >>> KVLayout(num_layers=2, num_kv_heads=4, head_dim=64, block_size=16,
    ...          dtype=torch.bfloat16).bytes_per_block
    32768
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    dtype: torch.dtype

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block's keys and values over all layers."""
        per_token = 2 * self.num_kv_heads * self.head_dim * self.dtype.itemsize
        return self.num_layers * self.block_size * per_token

    def blocks_in(self, num_gib: float) -> int:
        """Return how many blocks fit in so many GiB."""
        return int(num_gib * GIB // self.bytes_per_block)


class KVStorage:
    """Keys and values of all layers, addressed by block id; taken at the first use, not before.

    Args:
        layout: Of one block.
        num_blocks: Blocks of the pool.
        device: Where they are.
        num_spare_slots: Tokens for which there is room behind the pool's blocks: what pads a batch
            writes there, and nobody reads it.
    """

    def __init__(
        self,
        layout: KVLayout,
        num_blocks: int,
        device: torch.device,
        *,
        num_spare_slots: int = 0,
    ) -> None:
        self.layout = layout
        self.num_blocks = num_blocks
        self.num_spare_slots = num_spare_slots
        self.device = device
        self._layers: list[tuple[Tensor, Tensor]] | None = None

    def another(
        self, num_blocks: int, *, block_size: int | None = None, num_spare_slots: int = 0
    ) -> KVStorage:
        """Return an empty storage for the same model."""
        layout = self._layout_in(block_size)
        return KVStorage(layout, num_blocks, self.device, num_spare_slots=num_spare_slots)

    def _layout_in(self, block_size: int | None) -> KVLayout:
        return replace(self.layout, block_size=block_size or self.layout.block_size)

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs (keys, values), each [num_blocks + spares, num_kv_heads, block_size, head_dim].

        Raises:
            InvalidConfig: the memory cannot be had.
        """
        if self._layers is None:
            self._layers = self._allocate()
        return self._layers

    def free(self) -> None:
        """Give the memory back; the content is lost."""
        self._layers = None

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return self._num_in_all * self.layout.bytes_per_block

    @property
    def spare_slots(self) -> range:
        """Slots that belong to no block of the pool's."""
        first = self.num_blocks * self.layout.block_size
        return range(first, first + self.num_spare_slots)

    @property
    def _num_in_all(self) -> int:
        return self.num_blocks + -(-self.num_spare_slots // self.layout.block_size)

    def copy_blocks(self, source_ids: Sequence[int], target_ids: Sequence[int]) -> None:
        """Copy whole blocks in every layer; all are read before any is written."""
        if not source_ids:
            return
        source = to_device(torch.tensor(source_ids, dtype=torch.int64), self.device)
        target = to_device(torch.tensor(target_ids, dtype=torch.int64), self.device)
        for keys, values in self.layers:
            keys[target] = keys[source]
            values[target] = values[source]

    def _allocate(self) -> list[tuple[Tensor, Tensor]]:
        layout = self.layout
        shape = (self._num_in_all, layout.num_kv_heads, layout.block_size, layout.head_dim)

        def zeros() -> Tensor:
            # Zeros, not garbage: masked positions are multiplied by 0, and 0 * NaN is NaN.
            if self.device.type == "cpu":
                return untouched_zeros(shape, layout.dtype)
            return torch.zeros(shape, dtype=layout.dtype, device=self.device)

        try:
            return [(zeros(), zeros()) for _ in range(layout.num_layers)]
        except (RuntimeError, MemoryError, OSError, OverflowError) as error:
            raise InvalidConfig(
                f"the KV cache of {self.num_blocks} blocks needs {self.nbytes / GIB:.2f} GiB on "
                f"{self.device}, which could not be had; lower num_kv_blocks, max_num_seqs or "
                "max_model_len"
            ) from error
