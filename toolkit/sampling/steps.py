"""The formulas of the chain's steps, each over many rows at once, none in a Python loop.

The cut-offs by likelihood (top-k, top-p, min-p) are an op: ``reference_sampling.cut_unlikely``.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["atypical", "penalise"]


def penalise(
    logits: Tensor,
    output_counts: Tensor,
    in_prompt: Tensor,
    *,
    presence: Tensor,
    frequency: Tensor,
    repetition: Tensor,
) -> Tensor:
    """Return logits with repetition, then presence and frequency penalties applied.

    Args:
        logits: [rows, vocab] float32.
        output_counts: [rows, vocab], occurrences in the output.
        in_prompt: [rows, vocab] bool.
        presence: [rows] float32, like the others; presence and frequency are OpenAI's formula,
            repetition is Keskar et al. 2019, section 4.1.
        frequency: See presence.
        repetition: See presence.
    """
    seen = in_prompt | (output_counts > 0)
    scaled = torch.where(
        logits > 0, logits / repetition.unsqueeze(1), logits * repetition.unsqueeze(1)
    )
    logits = torch.where(seen, scaled, logits)
    logits = logits - frequency.unsqueeze(1) * output_counts
    return logits - presence.unsqueeze(1) * (output_counts > 0)


def atypical(logits: Tensor, mass: Tensor) -> Tensor:
    """Tell which tokens typical-p drops: the farthest from the entropy, once mass is reached.

    With information i(t) = -log p(t) and entropy H = E[i], tokens are taken in the order of
    |i(t) - H| until their probability reaches ``mass`` (Meister et al. 2022, section 4); those that
    tie with the last are taken too.

    Args:
        logits: [rows, vocab] float32 after the cut-offs before; what they dropped is -inf.
        mass: [rows] float32, each in (0, 1).

    Returns:
        [rows, vocab] bool.
    """
    logprobs = logits.log_softmax(dim=1)
    probs = logprobs.exp()
    # nansum: what is impossible contributes 0 * inf, in the limit nothing.
    entropy = -(probs * logprobs).nansum(dim=1, keepdim=True)
    distance = (logprobs + entropy).abs()
    ordered = distance.sort(dim=1)
    reached = probs.gather(1, ordered.indices).cumsum(dim=1, dtype=torch.float64)
    # Rounding may leave the sum just short of the mass at the end.
    last = (reached < mass.unsqueeze(1)).sum(dim=1, keepdim=True).clamp(max=logits.shape[1] - 1)
    return distance > ordered.values.gather(1, last)
