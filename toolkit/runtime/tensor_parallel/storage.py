"""The KV cache of a model in several processes: each has the keys and values of its own heads."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.cache.storage import KVLayout, KVStorage
from toolkit.runtime.tensor_parallel.orders import CopyBlocks, OpenCache
from toolkit.runtime.tensor_parallel.workers import Workers

__all__ = ["ShardedStorage", "SharedLayers"]


class SharedLayers(list[tuple[Tensor, Tensor]]):
    """This process's caches, and the number under which the others have theirs."""

    key: int = 0


class ShardedStorage(KVStorage):
    """This process's part of a KV cache; the others' parts come and go with it.

    Args:
        layout: Of one process's part.
        num_blocks: Blocks, of which every process has its part.
        device: This process's.
        workers: The other processes.
    """

    def __init__(
        self, layout: KVLayout, num_blocks: int, device: torch.device, workers: Workers
    ) -> None:
        super().__init__(layout, num_blocks, device)
        self._workers = workers

    def another(
        self, num_blocks: int, *, block_size: int | None = None, num_spare_slots: int = 0
    ) -> ShardedStorage:
        """Return an empty storage for the same model; it has no spare slots."""
        assert num_spare_slots == 0, "nothing pads a batch that several processes compute"
        layout = self._layout_in(block_size)
        return ShardedStorage(layout, num_blocks, self.device, self._workers)

    def copy_blocks(self, source_ids: Sequence[int], target_ids: Sequence[int]) -> None:
        """Copy whole blocks in every layer of every process."""
        if not source_ids:
            return
        key = key_of(self.layers)
        with self._workers.together(CopyBlocks(key, source_ids, target_ids)):
            super().copy_blocks(source_ids, target_ids)

    def _allocate(self) -> SharedLayers:
        layers = SharedLayers(super()._allocate())
        layers.key = self._workers.new_cache()
        with self._workers.together(OpenCache(layers.key, self.layout, self.num_blocks)):
            # When this process lets go of its part, however that comes, the others do.
            drop = weakref.finalize(layers, self._workers.drop_cache, layers.key)
            drop.atexit = False
        return layers


def key_of(layers: object) -> int:
    """Return the number of a cache that a ShardedStorage made."""
    assert isinstance(layers, SharedLayers), "the other processes have no such cache"
    return layers.key
