"""Choose the rows whose attention probabilities a step shows: no fast kernel computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from toolkit.engine.plan import ScheduledChunk
from toolkit.models import FlatBatch, ProbsRows
from toolkit.runtime.hooks.capture import Capture
from toolkit.runtime.hooks.hooked import HookedRequest
from toolkit.runtime.hooks.kinds import Bound
from toolkit.runtime.hooks.names import Point

__all__ = ["HookedChunk", "ProbsPlan"]


@dataclass(slots=True)
class HookedChunk:
    """A hooked request's chunk, and where it lies."""

    hooked: HookedRequest
    chunk: ScheduledChunk
    index: int  # among the plan's chunks
    first_row: int  # of the flat batch
    sampled_row: int  # among the logits, if it samples
    changes: list[tuple[Bound, Sequence[int]]]
    reads: list[tuple[Capture, Sequence[int]]]


class ProbsPlan:
    """Whose attention probabilities a step shows: of each request its wanted positions' hull."""

    def __init__(self, batch: FlatBatch, parts: list[HookedChunk]) -> None:
        self._batch = batch
        self._parts: list[HookedChunk] = []
        self.layers: set[int] = set()
        self.hulls: dict[int, range] = {}  # by index among the plan's chunks
        self._firsts: dict[int, int] = {}  # row of the hull's first position
        self._num_rows = 0
        for part in parts:
            asked = [*((b.points, w) for b, w in part.changes)]
            asked += [(capture.places, wanted) for capture, wanted in part.reads]
            self._add(part, [(points, w) for points, w in asked if _layers(points)])

    def _add(self, part: HookedChunk, asked: list[tuple[tuple[Point, ...], Sequence[int]]]) -> None:
        if asked:
            hull = range(min(w[0] for _, w in asked), max(w[-1] for _, w in asked) + 1)
            self.layers.update(layer for points, _ in asked for layer in _layers(points))
            self._parts.append(part)
            self.hulls[part.index] = hull
            self._firsts[part.index] = self._num_rows
            self._num_rows += len(hull)

    def offset(self, part: HookedChunk) -> int:
        """Return what to add to a position for its row."""
        return self._firsts[part.index] - self.hulls[part.index].start

    def rows(self) -> ProbsRows:
        """Return them as the decoder takes them."""
        device = self._batch.token_ids.device
        hulls = [self.hulls[part.index] for part in self._parts]
        flat = [
            part.first_row - part.chunk.start + position
            for part, hull in zip(self._parts, hulls, strict=True)
            for position in hull
        ]
        starts = [self._firsts[part.index] for part in self._parts]
        return ProbsRows(
            rows=torch.tensor(flat, device=device),
            block_tables=self._batch.block_tables[[part.index for part in self._parts]],
            query_starts=torch.tensor([*starts, self._num_rows], dtype=torch.int32, device=device),
            context_lens=torch.tensor(
                [hull.stop for hull in hulls], dtype=torch.int32, device=device
            ),
        )


def _layers(points: tuple[Point, ...]) -> list[int]:
    return [p.layer for p in points if p.name == "attn_probs" and p.layer is not None]
