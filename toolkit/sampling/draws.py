"""Draw many tokens from one distribution, each at its own position, as a sampler would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import InvalidParameter
from toolkit.kernels.reference_sampling import gumbel_noise
from toolkit.sampling.random import row_keys

__all__ = ["as_logits", "draws"]

# Scores in flight: 8 MiB of float64, since a large vocabulary times many draws is gigabytes.
_SCORES_AT_ONCE = 1 << 20


def as_logits(values: Any) -> Tensor:
    """Return a copy of one row of logits, [vocab] float32 on the CPU.

    Args:
        values: A tensor, an array or a list; a row of one, [1, vocab], is taken as [vocab].

    Raises:
        InvalidParameter: it is no single row, holds a NaN, or nothing that could be chosen.
    """
    logits = torch.as_tensor(values).detach().to("cpu", torch.float32, copy=True)
    if logits.ndim == 2 and len(logits) == 1:
        logits = logits[0]
    if logits.ndim != 1 or not len(logits):
        raise InvalidParameter(
            f"expected one row of logits, [vocab], not a shape of {tuple(logits.shape)}",
            param="logits",
        )
    if bool(logits.isnan().any()) or not bool(logits.isfinite().any()):
        raise InvalidParameter("logits hold a NaN, or nothing that could be chosen", param="logits")
    return logits


def draws(
    logits: Tensor, *, seed: int, positions: Sequence[int], sample_index: int = 0
) -> list[int]:
    """Return the token that is drawn at each position, were the distribution the same at all.

    Args:
        logits: [vocab] float32 after the whole chain; -inf is never drawn.
        seed: The request's.
        positions: Of the tokens drawn.
        sample_index: Which of a request's n samples draws.
    """
    # Only what is possible races: the noise of a token depends on no other.
    possible = (logits > -torch.inf).nonzero().flatten()
    count = len(positions)
    keys = row_keys([seed] * count, [sample_index] * count, positions).view("int64")
    drawn: list[int] = []
    for part in torch.from_numpy(keys).split(max(1, _SCORES_AT_ONCE // len(possible))):
        scores = gumbel_noise(part.unsqueeze(1), possible).add_(logits[possible])
        drawn += possible[scores.argmax(dim=1)].tolist()
    return drawn
