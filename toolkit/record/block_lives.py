"""How long blocks of the KV cache live, lie idle and wait for their next use."""

from __future__ import annotations

from toolkit.engine.events import BlockEvicted, BlockShared, BlockTaken
from toolkit.record.histogram import BLOCK_LIFE_BOUNDS_S, Histogram

__all__ = ["BlockLives"]


class BlockLives:
    """Three histograms in seconds, over all blocks; vLLM's are over a sample of them."""

    def __init__(self) -> None:
        self.lifetime_s = Histogram(BLOCK_LIFE_BOUNDS_S)  # from being taken to the eviction
        self.idle_s = Histogram(BLOCK_LIFE_BOUNDS_S)  # from the last use to the eviction
        self.reuse_gap_s = Histogram(BLOCK_LIFE_BOUNDS_S)  # from one use to the next
        self._taken_s: dict[int, float] = {}
        self._used_s: dict[int, float] = {}

    def on_taken(self, event: BlockTaken) -> None:
        """A block begins its life."""
        self._taken_s[event.block_id] = self._used_s[event.block_id] = event.time_s

    def on_shared(self, event: BlockShared) -> None:
        """A block is used by one more request."""
        used_s = self._used_s.get(event.block_id)
        self._used_s[event.block_id] = event.time_s
        if used_s is not None:  # None: it was taken before anybody listened
            self.reuse_gap_s.observe(event.time_s - used_s)

    def on_evicted(self, event: BlockEvicted) -> None:
        """A block loses its content."""
        self.idle_s.observe(event.age_s)
        self._used_s.pop(event.block_id, None)
        taken_s = self._taken_s.pop(event.block_id, None)
        if taken_s is not None:
            self.lifetime_s.observe(event.time_s - taken_s)
