"""A frozen copy of every block's state, cheap enough to take ten times a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BlockSnapshot"]


@dataclass(frozen=True, slots=True)
class BlockSnapshot:
    """What the pool and the tables held at one moment; lists have an entry per block."""

    step: int
    time_s: float
    block_size: int
    ref_counts: list[int]
    names: list[bytes | None]
    last_used_s: dict[int, float]  # of free blocks that keep their content
    tables: dict[str, list[int]]  # by request id, in the order of the request's tokens
    num_computed_tokens: Mapping[str, int]  # by request id

    @property
    def num_blocks(self) -> int:
        """Blocks in all."""
        return len(self.ref_counts)
