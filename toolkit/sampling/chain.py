"""The standard steps of the chain, in their order, each over all rows that ask for it.

The order is part of the contract: users' processors stand before ``SHAPING``, between it and
``CUTTING``, and after that. A step takes logits [rows, vocab] float32, may change them in place,
and costs nothing when no row asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from toolkit.kernels import Ops
from toolkit.kernels.transfers import to_device
from toolkit.sampling.batch import SamplingBatch
from toolkit.sampling.history import SeenTokens
from toolkit.sampling.steps import atypical, penalise

__all__ = ["CUTTING", "CUT_OFFS", "DESCRIPTION", "SHAPING", "ChainState", "Watch", "run_steps"]


@dataclass(frozen=True, slots=True)
class ChainState:
    """What the steps know beside the parameters: how far each row has come.

    Args:
        batch: The parameters of the rows.
        ops: What is computed in one pass over the vocabulary.
        num_outputs: Output tokens that each row has.
        seen: What the penalised rows have seen, in their order; None when there are none.
        banned_now: Rows and tokens: bad words that would be complete.
        off_grammar: [constrained rows, vocab] bool, what their grammars forbid; None when there are
            none.
    """

    batch: SamplingBatch
    ops: Ops
    num_outputs: Sequence[int]
    seen: SeenTokens | None
    banned_now: tuple[Sequence[int], Sequence[int]] = ((), ())
    off_grammar: Tensor | None = None


# Called with the name of what ran and the logits [rows, vocab] after it, which it must not change.
Watch: TypeAlias = Callable[[str, Tensor], None]


class Step(NamedTuple):
    """A step and its name in ``sampler.chain``."""

    name: str
    apply: Callable[[Tensor, ChainState], Tensor]


def run_steps(
    steps: Sequence[Step], logits: Tensor, state: ChainState, watch: Watch | None = None
) -> Tensor:
    """Apply steps one after the other; ``watch`` is shown the logits after each."""
    for step in steps:
        logits = step.apply(logits, state)
        if watch is not None:
            watch(step.name, logits)
    return logits


def _add_bias(logits: Tensor, state: ChainState) -> Tensor:
    batch = state.batch
    if len(batch.bias):
        logits.index_put_(batch.biased, batch.bias, accumulate=True)
    return logits


def _keep_allowed(logits: Tensor, state: ChainState) -> Tensor:
    rows = state.batch.restricted
    if not rows:
        return logits
    kept = rows.select(logits).masked_fill(~state.batch.is_allowed, -torch.inf)
    return rows.put(logits, kept)


def _ban_words(logits: Tensor, state: ChainState) -> Tensor:
    if len(state.batch.banned[0]):
        logits[state.batch.banned] = -torch.inf
    rows, token_ids = state.banned_now
    if rows:
        logits[list(rows), list(token_ids)] = -torch.inf
    return logits


def _hold_back_stops(logits: Tensor, state: ChainState) -> Tensor:
    batch = state.batch
    rows, _ = batch.held_back
    if len(rows):
        num_outputs = to_device(torch.tensor(state.num_outputs), logits.device)[rows]
        held = torch.where(num_outputs < batch.held_until, -torch.inf, logits[batch.held_back])
        logits[batch.held_back] = held
    return logits


def _keep_grammar(logits: Tensor, state: ChainState) -> Tensor:
    rows = state.batch.constrained
    if state.off_grammar is None:
        return logits
    return rows.put(logits, rows.select(logits).masked_fill_(state.off_grammar, -torch.inf))


def _penalise(logits: Tensor, state: ChainState) -> Tensor:
    batch, rows = state.batch, state.batch.penalised
    if state.seen is None:
        return logits
    penalised = penalise(
        rows.select(logits),
        *state.seen,
        presence=batch.presence,
        frequency=batch.frequency,
        repetition=batch.repetition,
    )
    return rows.put(logits, penalised)


def _divide_by_temperature(logits: Tensor, state: ChainState) -> Tensor:
    batch = state.batch
    return logits.div_(batch.temperature.unsqueeze(1)) if batch.has_temperature else logits


def _cut_unlikely(logits: Tensor, state: ChainState) -> Tensor:
    batch, rows = state.batch, state.batch.cut
    if not rows:
        return logits
    kept = state.ops.cut_unlikely(
        rows.select(logits),
        top_k=batch.top_k,
        max_top_k=batch.max_top_k,
        top_p=batch.top_p if batch.has_top_p else None,
        min_p=batch.min_p if batch.has_min_p else None,
    )
    return rows.put(logits, kept)


def _cut_atypical(logits: Tensor, state: ChainState) -> Tensor:
    rows = state.batch.typical
    if not rows:
        return logits
    selected = rows.select(logits)
    dropped = atypical(selected, state.batch.typical_p)
    return rows.put(logits, selected.masked_fill(dropped, -torch.inf))


CUT_OFFS = "top-k -> top-p -> min-p"
SHAPING = (
    Step("logit bias", _add_bias),
    Step("allowed tokens", _keep_allowed),
    Step("bad words", _ban_words),
    Step("min tokens", _hold_back_stops),
    Step("grammar mask", _keep_grammar),
    Step("repetition, presence, frequency penalties", _penalise),
)
CUTTING = (
    Step("temperature", _divide_by_temperature),
    Step(CUT_OFFS, _cut_unlikely),  # one threshold for the three of them
    Step("typical-p", _cut_atypical),
)
DESCRIPTION = " -> ".join(
    [
        "raw processors",
        *(step.name for step in SHAPING),
        "processors",
        *(step.name for step in CUTTING),
        "final processors",
        "draw",
    ]
)
