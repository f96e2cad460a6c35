"""What the chain makes of some rows, kept step by step, and who wins the draw.

A ``Trace`` watches the sampler while it runs; ``Stages`` is what it saw of one row. Top-k, top-p
and min-p are one threshold in the sampler; here each is shown as a stage of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.kernels import Ops
from toolkit.kernels.reference_sampling import gumbel_noise
from toolkit.request import Request
from toolkit.sampling.chain import CUT_OFFS
from toolkit.sampling.random import row_keys

__all__ = ["RAW", "Race", "Stage", "Stages", "Trace", "draw_numbers"]

RAW = "raw logits"


@dataclass(frozen=True, slots=True)
class Stage:
    """One row after a step of the chain."""

    name: str
    logits: Tensor  # [vocab] float32; -inf for a token that cannot be chosen
    changed: bool  # whether the step changed any logit
    kept: int  # tokens that can still be chosen


class Race(NamedTuple):
    """The tokens that were raced, the winner first, and why they came in as they did.

    A greedy row has no draw: its numbers are 0, and its sums are the logits.
    """

    token_ids: Tensor  # [kept] int64
    numbers: Tensor  # [kept] float64, see ``draw_numbers``
    sums: Tensor  # [kept] float64: the final logit and the number; the largest wins


def draw_numbers(token_ids: Tensor, *, seed: int, sample_index: int, position: int) -> Tensor:
    """Return the random number, float64, that each token id gets in one draw.

    It is standard Gumbel noise, a function of these arguments and of nothing else.
    """
    keys = row_keys([seed], [sample_index], [position]).view("int64")
    return gumbel_noise(torch.from_numpy(keys).to(token_ids.device), token_ids)


@dataclass(frozen=True, slots=True, repr=False)
class Stages:
    """Everything between one row of logits and the token that came of it."""

    stages: tuple[Stage, ...]  # the first are the raw logits
    token_id: int
    is_greedy: bool
    seed: int
    sample_index: int
    position: int

    @property
    def key(self) -> int:
        """The row's 64-bit key, from which the numbers of all its tokens follow."""
        return int(row_keys([self.seed], [self.sample_index], [self.position])[0])

    def probabilities(self, index: int = -1) -> Tensor:
        """Return the distribution after a stage, [vocab] float32; the last one is drawn from."""
        return self.stages[index].logits.softmax(dim=0)

    def kept(self, index: int = -1) -> Tensor:
        """Return the ids of the tokens that can still be chosen after a stage, in order."""
        return (self.stages[index].logits > -torch.inf).nonzero().squeeze(1)

    @property
    def race(self) -> Race:
        """The draw among the tokens that were kept."""
        token_ids = self.kept()
        logits = self.stages[-1].logits[token_ids].double()
        if self.is_greedy:
            numbers = torch.zeros_like(logits)
        else:
            numbers = draw_numbers(
                token_ids,
                seed=self.seed,
                sample_index=self.sample_index,
                position=self.position,
            )
        sums = logits + numbers
        order = sums.argsort(descending=True, stable=True)  # of a tie the lower id is first
        return Race(token_ids[order], numbers[order], sums[order])

    def __repr__(self) -> str:
        kept = ", ".join(f"{stage.name}: {stage.kept}" for stage in self.stages if stage.changed)
        return f"Stages(token {self.token_id}; kept after {kept or 'no step'})"


class Trace:
    """Keeps what the steps make of some rows of a batch.

    Args:
        logits: [rows, vocab] float32, before any step.
        requests: Whose rows these are.
        numbers: The rows to keep.
    """

    def __init__(self, logits: Tensor, requests: Sequence[Request], numbers: Sequence[int]) -> None:
        self.requests = requests
        self.numbers = list(numbers)
        self._index = torch.tensor(self.numbers, dtype=torch.int64, device=logits.device)
        self._last = logits[self._index]  # [kept rows, vocab], a copy
        self._steps = [(RAW, self._last)]

    def __call__(self, name: str, logits: Tensor) -> None:
        """Keep the rows after the step ``name``."""
        now = logits[self._index]
        if not torch.equal(now, self._last):  # else the copy need not be held
            self._last = now
        self._steps.append((name, self._last))

    def seen(self, place: int, token_id: int, *, position: int, ops: Ops) -> Stages:
        """Return what was seen of the ``place``-th of the kept rows, which chose ``token_id``."""
        request = self.requests[self.numbers[place]]
        return Stages(
            stages=self._stages(place, ops),
            token_id=token_id,
            is_greedy=request.params.is_greedy,
            seed=request.seed,
            sample_index=request.sample_index,
            position=position,
        )

    def _stages(self, place: int, ops: Ops) -> tuple[Stage, ...]:
        before = self._steps[0][1][place]
        found = [_stage(RAW, before, None)]
        request = self.requests[self.numbers[place]]
        for name, rows in self._steps[1:]:
            after = rows[place]
            named = [(name, after)]
            if name == CUT_OFFS:
                named = [*_cut_offs(before, request, ops), ("min-p", after)]
            for part, logits in named:
                found.append(_stage(part, logits, before))
                before = logits
        return tuple(found)


def _stage(name: str, logits: Tensor, before: Tensor | None) -> Stage:
    changed = before is not None and not torch.equal(logits, before)
    return Stage(name, logits, changed, int((logits > -torch.inf).sum()))


def _cut_offs(logits: Tensor, request: Request, ops: Ops) -> Iterator[tuple[str, Tensor]]:
    """Yield the row [vocab] after top-k, and after top-k and top-p."""
    params, vocab_size = request.params, len(logits)
    top_k = min(params.top_k or vocab_size, vocab_size)
    for name, top_p in (("top-k", 1.0), ("top-p", params.top_p)):
        if params.is_greedy or (top_k == vocab_size and top_p == 1.0):
            yield name, logits
            continue
        cut = ops.cut_unlikely(
            logits.unsqueeze(0).clone(),
            top_k=torch.tensor([top_k], device=logits.device),
            max_top_k=top_k,
            top_p=torch.tensor([top_p], device=logits.device) if top_p < 1.0 else None,
            min_p=None,
        )
        yield name, cut.squeeze(0)
