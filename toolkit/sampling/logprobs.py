"""Log-probabilities of chosen and most likely tokens, raw: before any step of the sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from toolkit.request import Logprob

__all__ = ["gather_logprobs"]


def gather_logprobs(
    logits: Tensor,
    chosen: Tensor,
    num_top: Sequence[int],
    decode_token: Callable[[int], str] | None,
) -> list[dict[int, Logprob]]:
    """Return, per row, the chosen token's entry and then the most likely ones in order.

    Args:
        logits: [rows, vocab] float32, untouched.
        chosen: [rows] int64.
        num_top: How many most likely tokens each row wants; 0 is the chosen one alone.
        decode_token: Makes a token's text, or None.
    """
    log_total = logits.logsumexp(dim=1, keepdim=True)
    own_logit = logits.gather(1, chosen.unsqueeze(1))
    ranks = (logits > own_logit).sum(dim=1).add(1).tolist()
    own = (own_logit - log_total).squeeze(1).tolist()
    widest = min(max(num_top, default=0), logits.shape[1])
    top = logits.topk(widest, dim=1)
    top_values, top_ids = (top.values - log_total).tolist(), top.indices.tolist()
    text = decode_token if decode_token is not None else lambda token_id: None
    rows = []
    for row, token_id in enumerate(chosen.tolist()):
        entries = {token_id: Logprob(own[row], ranks[row], text(token_id))}
        for rank in range(min(num_top[row], widest)):
            top_id = top_ids[row][rank]
            entries.setdefault(top_id, Logprob(top_values[row][rank], rank + 1, text(top_id)))
        rows.append(entries)
    return rows
