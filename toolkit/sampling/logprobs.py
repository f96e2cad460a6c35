"""Log-probabilities of chosen and most likely tokens: of the model, and after the whole chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from toolkit.request import Logprob

__all__ = ["entropies", "gather_logprobs"]


def entropies(logits: Tensor) -> list[float]:
    """Return the entropy of each row's distribution, in nats.

    Args:
        logits: [rows, vocab] float32; what is -inf contributes nothing.
    """
    found: list[float] = torch.special.entr(logits.softmax(dim=1)).sum(dim=1).tolist()
    return found


def gather_logprobs(
    raw: Tensor,
    processed: Tensor,
    chosen: Tensor,
    *,
    num_top: Sequence[int],
    decode_token: Callable[[int], str] | None,
) -> list[dict[int, Logprob]]:
    """Return, per row, the chosen token's entry and then the most likely ones in order.

    Ranks and "most likely" are by the raw logits, as in vLLM.

    Args:
        raw: [rows, vocab] float32, untouched by any step.
        processed: [rows, vocab] float32, as they were drawn from.
        chosen: [rows] int64.
        num_top: How many most likely tokens each row wants; 0 is the chosen one alone.
        decode_token: Makes a token's text, or None.
    """
    totals = raw.logsumexp(dim=1, keepdim=True), processed.logsumexp(dim=1, keepdim=True)
    own_ids = chosen.unsqueeze(1)
    own_logits = raw.gather(1, own_ids)
    ranks = (raw > own_logits).sum(dim=1).add(1).tolist()
    own_raw = (own_logits - totals[0]).squeeze(1).tolist()
    own_processed = (processed.gather(1, own_ids) - totals[1]).squeeze(1).tolist()
    top = raw.topk(min(max(num_top, default=0), raw.shape[1]), dim=1)
    top_ids = top.indices.cpu()
    top_raw = (top.values - totals[0]).cpu()
    top_processed = (processed.gather(1, top.indices) - totals[1]).cpu()
    text = decode_token if decode_token is not None else lambda token_id: None
    rows = []
    for row, token_id in enumerate(chosen.tolist()):
        own = Logprob(own_raw[row], ranks[row], text(token_id), own_processed[row])
        entries = {token_id: own}
        columns = (part[row, : num_top[row]].tolist() for part in (top_ids, top_raw, top_processed))
        for rank, (top_id, logprob, after) in enumerate(zip(*columns, strict=True), start=1):
            if top_id != token_id:
                entries[top_id] = Logprob(logprob, rank, text(top_id), after)
        rows.append(entries)
    return rows
