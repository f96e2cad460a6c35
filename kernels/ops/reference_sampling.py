"""Choose a token per row in plain PyTorch: the largest logit, or the winner of a race.

A race is won by the largest of logit + Gumbel noise.

The Gumbel-max trick (Gumbel 1954; Yellott 1977): with independent standard Gumbel noise g(t) on
every token t, argmax over t of logit(t) + g(t) is distributed as the softmax of the logits. No
token's noise depends on another's, so any subset of the vocabulary can be raced again on its own,
in any order; and a change of the logits by 1e-6 (other chunks, another batch) only matters where
the two best lie that close, in about one draw of a million.

The noise of token t in a row with key k, bit for bit, with integers modulo 2**64 and shifts that
bring in zeros:

    z = k + (t + 1) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    u = ((z >> 12) + 1/2) * 2**-52           in (0, 1), exact in float64
    g = -log(-log(u))                        in float64, between -3.61 and 36.74

That z is output number t, from 0, of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) started at
state k, with Stafford's 13th set of constants, as in Vigna's splitmix64.c. The logarithms are the
machine's: between machines g may differ in the last of its 53 bits.

Request path 8/8: from sampling.sampler.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["argmax", "cut_unlikely", "gumbel_noise", "race", "token_bits"]


def _signed(word: int) -> int:
    """Return the int64 with the bits of an unsigned 64-bit word: torch has no uint64 arithmetic."""
    return word - 2**64 if word >= 2**63 else word


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)
# Scores in flight: on a CPU they stay in the cache, on a GPU they fill it with work.
_BLOCK_SIZES = {"cpu": 1 << 16}
_DEVICE_BLOCK_SIZE = 1 << 24
# Below this share of possible tokens it is cheaper to gather them than to race everybody.
_SPARSE_SHARE = 0.1
# A nucleus is looked for among this many most likely tokens first; a full sort of a large
# vocabulary takes ten times as long and is rarely needed.
_NUCLEUS_CANDIDATES = 256


def token_bits(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Return 52 random bits for each pair of a row's key and a token id, as int64.

    Args:
        keys: int64 with the bits of ``row_keys``, broadcast against
        token_ids: int64.
    """
    z = (token_ids + 1) * _GAMMA + keys
    shifted = torch.empty_like(z)
    # torch shifts in copies of the sign: the mask makes the shift a logical one.
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        torch.bitwise_right_shift(z, shift, out=shifted).bitwise_and_((1 << 64 - shift) - 1)
        z.bitwise_xor_(shifted).mul_(factor)
    torch.bitwise_right_shift(z, 31, out=shifted).bitwise_and_((1 << 33) - 1)
    return z.bitwise_xor_(shifted).bitwise_right_shift_(12).bitwise_and_((1 << 52) - 1)


def gumbel_noise(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Return standard Gumbel noise, float64, for each pair of a row's key and a token id.

    Args:
        keys: int64 with the bits of ``row_keys``, broadcast against
        token_ids: int64.
    """
    uniform = token_bits(keys, token_ids).double().add_(0.5).mul_(2.0**-52)
    return uniform.log_().neg_().log_().neg_()


def argmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Find the largest logit of each row [rows, vocab] float32; of several the lowest id.

    Returns token ids [rows] int64, and [rows] bool: whether the row's largest is finite and no NaN
    is in it. The token of a row that is not so means nothing.
    """
    return logits.argmax(dim=1), logits.amax(dim=1).isfinite()  # a NaN makes the largest one NaN


def race(logits: Tensor, keys: Tensor) -> Tensor:
    """Draw one token per row from the softmax of its logits; ties go to the lowest id.

    Args:
        logits: [rows, vocab] float32; a token at -inf is never drawn while another is not.
        keys: [rows] int64 with the bits of ``row_keys``.

    Returns:
        [rows] int64.
    """
    if logits.device.type == "cpu":
        possible = logits > -torch.inf
        if int(possible.sum()) < _SPARSE_SHARE * logits.numel():
            return _race_few(logits, keys, possible)
    return _race_all(logits, keys)


def _race_all(logits: Tensor, keys: Tensor) -> Tensor:
    """Race the whole vocabulary, block by block."""
    num_rows, vocab_size = logits.shape
    device = logits.device
    best = torch.full((num_rows,), -torch.inf, dtype=torch.float64, device=device)
    tokens = torch.zeros(num_rows, dtype=torch.int64, device=device)
    block = _BLOCK_SIZES.get(device.type, _DEVICE_BLOCK_SIZE) // max(num_rows, 1) or 1
    for start in range(0, vocab_size, block):
        token_ids = torch.arange(start, min(start + block, vocab_size), device=device)
        scores = gumbel_noise(keys.unsqueeze(1), token_ids).add_(logits[:, start : start + block])
        leader = scores.max(dim=1)
        overtakes = leader.values > best  # strictly: a tie stays with the lower id
        tokens = torch.where(overtakes, leader.indices + start, tokens)
        best = torch.where(overtakes, leader.values, best)
    return tokens


def _race_few(logits: Tensor, keys: Tensor, possible: Tensor) -> Tensor:
    """Race the tokens that are possible [rows, vocab]; the noise of the others is never made."""
    num_rows, vocab_size = logits.shape
    rows, token_ids = possible.nonzero(as_tuple=True)
    scores = gumbel_noise(keys[rows], token_ids).add_(logits[rows, token_ids])
    best = torch.full((num_rows,), -torch.inf, dtype=torch.float64, device=logits.device)
    best.scatter_reduce_(0, rows, scores, "amax")
    wins = scores == best[rows]
    tokens = torch.full((num_rows,), vocab_size, dtype=torch.int64, device=logits.device)
    tokens.scatter_reduce_(0, rows[wins], token_ids[wins], "amin")
    # A row where nothing is possible has failed already; it only needs some valid id.
    return tokens.clamp_(max=vocab_size - 1)


def cut_unlikely(
    logits: Tensor,
    *,
    top_k: Tensor,
    max_top_k: int,
    top_p: Tensor | None,
    min_p: Tensor | None,
) -> Tensor:
    """Set to -inf what top-k, then top-p, then min-p drop; may change the logits in place.

    Together they are one threshold on a row's logits: a token is kept if its logit reaches it.
    Tokens that tie at the threshold are therefore all kept, whatever order a sort would have put
    them in.

    Args:
        logits: [rows, vocab] float32, already divided by the temperature.
        top_k: [rows] int64, vocabulary size where off.
        max_top_k: The largest of them.
        top_p: [rows] float32, or None when every row's is 1.
        min_p: [rows] float32, or None when every row's is 0.

    Returns:
        [rows, vocab] float32.
    """
    threshold = _threshold(logits, top_k, max_top_k, top_p, min_p)
    return logits.masked_fill(logits < threshold, -torch.inf)


def _threshold(
    logits: Tensor, top_k: Tensor, max_top_k: int, top_p: Tensor | None, min_p: Tensor | None
) -> Tensor:
    """Return [rows, 1] float32: the least logit that survives all three."""
    vocab_size = logits.shape[1]
    count = min(max_top_k, vocab_size)
    if top_p is not None and count > _NUCLEUS_CANDIDATES:
        found = _nucleus(logits, top_k, top_p, min(_NUCLEUS_CANDIDATES, vocab_size))
        threshold = found if found is not None else _nucleus(logits, top_k, top_p, vocab_size)
    elif top_p is not None:
        threshold = _nucleus(logits, top_k, top_p, count)
    elif count < vocab_size:
        ordered = logits.topk(count, dim=1).values
        threshold = ordered.gather(1, top_k.unsqueeze(1) - 1)
    else:
        threshold = _top_k_threshold(logits, top_k)
    assert threshold is not None  # a nucleus over the whole vocabulary always exists
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


def _nucleus(logits: Tensor, top_k: Tensor, top_p: Tensor, count: int) -> Tensor | None:
    """Return the logit at which each row's most likely tokens reach top_p.

    Looks at the ``count`` most likely tokens; None if that is too few for some row.
    """
    vocab_size = logits.shape[1]
    ordered = logits.topk(count, dim=1).values  # [rows, count]
    limits = top_k.clamp(max=count).unsqueeze(1) - 1
    k_threshold = torch.where(
        top_k.unsqueeze(1) < vocab_size, ordered.gather(1, limits), -torch.inf
    )
    if count < vocab_size and bool(((top_k > count) & (top_k < vocab_size)).any()):
        return None
    kept = torch.where(logits >= k_threshold, logits, -torch.inf)
    log_total = kept.logsumexp(dim=1, keepdim=True)
    probs = torch.where(ordered >= k_threshold, (ordered - log_total).exp(), 0.0)
    reached = probs.cumsum(dim=1, dtype=torch.float64) >= top_p.unsqueeze(1)
    # Rounding may leave the sum just short of top_p: only rows with more candidates look further.
    is_short = ~reached[:, -1] & (top_p < 1.0) & (top_k > count)
    if count < vocab_size and bool(is_short.any()):
        return None
    # The first place where the sum is reached; rounding may leave it just short of 1 at the end.
    last = torch.where(reached.any(dim=1), reached.int().argmax(dim=1), count - 1)
    threshold = ordered.gather(1, last.unsqueeze(1))
    unlimited = (top_p >= 1.0).unsqueeze(1)
    return torch.where(unlimited, k_threshold, torch.maximum(threshold, k_threshold))
