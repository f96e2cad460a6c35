"""Pool the hidden states of prompts into embeddings, over as many steps as a prompt takes.

Request path 5/8: from runtime.model_runner, beside the sampler. Each position is pooled once,
though a preempted request computes it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.engine.plan import ScheduledChunk, StepPlan
from toolkit.errors import InvalidParameter, RequestFailed
from toolkit.request import PoolingParams, Request

__all__ = ["PooledStep", "Pooler"]

# A vector shorter than this is noise around zero, and stays so.
_SHORTEST = 1e-12


@dataclass(slots=True)
class _Pooled:
    """How far the prompt of one request is pooled; its states are summed in float64."""

    params: PoolingParams
    num_prompt_tokens: int
    num_pooled: int = 0
    total: Tensor | None = None  # [width]

    def wanted(self, chunk: ScheduledChunk) -> range:
        """Return the positions in a chunk whose states are still to be pooled."""
        if self.params.pooling == "last":
            first, last = self.num_prompt_tokens - 1, self.num_prompt_tokens
        elif self.params.pooling == "cls":
            first, last = self.num_pooled, 1
        else:
            first, last = self.num_pooled, self.num_prompt_tokens
        start = max(chunk.start, first)
        return range(start, max(start, min(chunk.end, last)))

    def add(self, positions: range, hidden: Tensor) -> None:
        """Pool the states [positions, width]."""
        if positions:
            # The cache must not have given a position whose state was still wanted.
            is_next = positions.start == self.num_pooled
            assert is_next or self.params.pooling == "last", "a state is missing"
            total = hidden.sum(dim=0, dtype=torch.float64)
            self.total = total if self.total is None else self.total + total
            self.num_pooled = positions.stop


@dataclass(slots=True)
class PooledStep:
    """What one step pools: whose positions, and which of the plan's tokens these are."""

    parts: list[tuple[ScheduledChunk, range]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def rows_after(self, others: Tensor) -> Tensor:
        """Return the rows [others + rows] int64 of a flat batch: other ones, then these."""
        rows = torch.tensor(self.rows, dtype=torch.int64, device=others.device)
        return torch.cat((others, rows))


class Pooler:
    """The embeddings of the requests that pool, as far as their prompts are computed.

    ``start`` is called on the thread that adds a request, the rest on the engine's.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._pooled: dict[str, _Pooled] = {}

    def start(self, request: Request) -> None:
        """Expect a request, if it pools; raises InvalidParameter if states have fewer numbers."""
        if request.pooling is not None:
            asked = request.pooling.dimensions
            if asked is not None and asked > self.width:
                raise InvalidParameter(
                    f"dimensions={asked} is more than the {self.width} numbers of a hidden state",
                    param="dimensions",
                )
            self._pooled[request.id] = _Pooled(request.pooling, request.num_prompt_tokens)

    def forget(self, request_id: str) -> None:
        """Drop what is pooled of a request."""
        self._pooled.pop(request_id, None)

    def clear(self) -> None:
        """Drop everything."""
        self._pooled.clear()

    def plan(self, plan: StepPlan) -> PooledStep | None:
        """Say whose states a step pools; None if nobody's prompt is pooled in it."""
        if not self._pooled:
            return None
        step = PooledStep()
        first_row = 0
        for chunk in plan.chunks:
            pooled = self._pooled.get(chunk.request_id)
            if pooled is not None:
                positions = pooled.wanted(chunk)
                offset = first_row - chunk.start
                step.parts.append((chunk, positions))
                step.rows += range(positions.start + offset, positions.stop + offset)
            first_row += chunk.num_tokens
        return step if step.parts else None

    def take(
        self, step: PooledStep, hidden: Tensor
    ) -> tuple[dict[str, bytes], dict[str, BaseException]]:
        """Pool [step.rows, width]; return the vectors that are complete now, and what failed."""
        complete: dict[str, _Pooled] = {}
        sizes = [len(positions) for _, positions in step.parts]
        for (chunk, positions), states in zip(step.parts, hidden.split(sizes), strict=True):
            pooled = self._pooled[chunk.request_id]
            pooled.add(positions, states)
            if chunk.end == pooled.num_prompt_tokens:
                complete[chunk.request_id] = pooled
        if not complete:
            return {}, {}
        totals = torch.stack([pooled.total for pooled in complete.values()]).cpu().numpy()
        vectors: dict[str, bytes] = {}
        errors: dict[str, BaseException] = {}
        for (request_id, pooled), total in zip(complete.items(), totals, strict=True):
            if np.isfinite(total).all():
                vectors[request_id] = _vector(total, pooled).tobytes()
            else:
                errors[request_id] = RequestFailed(
                    "the hidden states of this prompt are not finite: load the model with "
                    'dtype="float32"'
                )
        return vectors, errors


def _vector(total: NDArray[np.float64], pooled: _Pooled) -> NDArray[np.float32]:
    """Return the mean of what was summed, shortened and scaled as asked."""
    params = pooled.params
    mean = total / pooled.num_prompt_tokens if params.pooling == "mean" else total
    mean = mean[: params.dimensions]
    if params.normalize:
        mean = mean / max(float(np.linalg.norm(mean)), _SHORTEST)
    return mean.astype("<f4")
