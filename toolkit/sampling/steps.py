"""The formulas of the chain's steps, each over many rows at once, none in a Python loop.

The cut-offs by likelihood (top-k, top-p, min-p) are expressed as one threshold on the logits: a
token is kept if its logit reaches it. Tokens that tie at the threshold are therefore all kept,
whatever order a sort would have put them in.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["atypical", "penalise", "truncation_threshold"]

# A nucleus is looked for among so many most likely tokens, then, for the rows whose nucleus is
# wider, among more. On a CPU, 64 take half as long to find as 256, and a full sort ten times that.
_NUCLEUS_CANDIDATES = (64, 256)


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


def truncation_threshold(
    logits: Tensor,
    *,
    top_k: Tensor,
    max_top_k: int,
    top_p: Tensor | None,
    min_p: Tensor | None,
) -> Tensor:
    """Return the least logit that survives top-k, then top-p, then min-p.

    Args:
        logits: [rows, vocab] float32, already divided by the temperature.
        top_k: [rows] int64, vocabulary size where off.
        max_top_k: The largest of them.
        top_p: [rows] float32, or None when every row's is 1.
        min_p: [rows] float32, or None when every row's is 0.

    Returns:
        [rows, 1] float32.
    """
    vocab_size = logits.shape[1]
    count = min(max_top_k, vocab_size)
    if top_p is not None:
        threshold = _nucleus_threshold(logits, top_k, top_p, count)
    elif count < vocab_size:
        ordered = logits.topk(count, dim=1).values
        threshold = ordered.gather(1, top_k.unsqueeze(1) - 1)
    else:
        threshold = _top_k_threshold(logits, top_k)
    if min_p is not None:
        floor = logits.max(dim=1, keepdim=True).values + min_p.unsqueeze(1).log()
        threshold = torch.maximum(threshold, floor)
    return threshold


def _top_k_threshold(logits: Tensor, top_k: Tensor) -> Tensor:
    """Top-k in a batch where some rows keep everything: only the others are searched."""
    threshold = logits.new_full((logits.shape[0], 1), -torch.inf)
    rows = (top_k < logits.shape[1]).nonzero().squeeze(1)
    if len(rows):
        limits = top_k[rows]
        ordered = logits[rows].topk(int(limits.max()), dim=1).values
        threshold[rows] = ordered.gather(1, limits.unsqueeze(1) - 1)
    return threshold


def _nucleus_threshold(logits: Tensor, top_k: Tensor, top_p: Tensor, max_top_k: int) -> Tensor:
    """Return the logit [rows, 1] at which each row's most likely tokens reach top_p."""
    first, *wider = sorted({min(count, max_top_k) for count in _NUCLEUS_CANDIDATES})
    threshold, is_short = _nucleus(logits, top_k, top_p, first)
    for count in (*wider, max_top_k):
        rows = is_short.nonzero().squeeze(1)
        if not len(rows):
            break
        found, still_short = _nucleus(logits[rows], top_k[rows], top_p[rows], count)
        threshold[rows], is_short[rows] = found, still_short
    return threshold


def _nucleus(logits: Tensor, top_k: Tensor, top_p: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Look for each row's nucleus among its ``count`` most likely tokens.

    Returns the threshold [rows, 1], and for which rows it is not one because that was too few
    tokens [rows].
    """
    vocab_size = logits.shape[1]
    ordered = logits.topk(count, dim=1).values  # [rows, count]
    is_limited = top_k < vocab_size
    kept, k_threshold = logits, logits.new_full((len(logits), 1), -torch.inf)
    if bool(is_limited.any()):
        limits = top_k.clamp(max=count).unsqueeze(1) - 1
        k_threshold = torch.where(is_limited.unsqueeze(1), ordered.gather(1, limits), -torch.inf)
        kept = torch.where(logits >= k_threshold, logits, -torch.inf)
    log_total = kept.logsumexp(dim=1, keepdim=True)
    probs = torch.where(ordered >= k_threshold, (ordered - log_total).exp(), 0.0)
    reached = probs.cumsum(dim=1, dtype=torch.float64) >= top_p.unsqueeze(1)
    # Rounding may leave the sum just short of top_p: only rows with more candidates look further.
    is_short = ~reached[:, -1] & (top_p < 1.0) & (top_k > count)
    is_short |= is_limited & (top_k > count)
    # The first place where the sum is reached; rounding may leave it just short of 1 at the end.
    last = torch.where(reached.any(dim=1), reached.int().argmax(dim=1), count - 1)
    threshold = ordered.gather(1, last.unsqueeze(1))
    unlimited = (top_p >= 1.0).unsqueeze(1)
    return torch.where(unlimited, k_threshold, torch.maximum(threshold, k_threshold)), is_short


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
