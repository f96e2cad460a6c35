"""Attend over a paged cache in plain PyTorch: the oracle for the Triton and C++ versions.

Scores and their softmax are float32 whatever the dtype of the cache. The conventions of shapes are
those of reference.py, where these ops are found.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["attention_probs", "mix_values", "paged_attention"]


class _Form(NamedTuple):
    """How a query's scores become probabilities."""

    scale: float
    alibi_slopes: Tensor | None  # [num_heads] float32: score -= slope * distance. arXiv:2108.12409
    window: int | None  # positions that a query sees, its own included
    softcap: float | None  # score = softcap * tanh(score / softcap). arXiv:2408.00118
    sinks: Tensor | None  # [num_heads]: a score that takes probability and has no value


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    *,
    scale: float,
    alibi_slopes: Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attend causally from each request's last positions to its cached context.

    query [num_tokens, num_heads, head_dim], flat over requests; block_tables
    [num_requests, max_blocks] int32, any valid id past the context; query_starts
    [num_requests + 1] int32; context_lens [num_requests] int32, this step's tokens included, whose
    keys and values are already in the caches. Requests with one query and with many may mix in any
    order. Returns [num_tokens, num_heads, head_dim] in query's dtype; softmax in float32.
    Kwon et al. 2023, arXiv:2309.06180.
    """
    form = _Form(scale, alibi_slopes, window, softcap, sinks)
    out = query.new_empty(query.shape)
    num_queries = query_starts.diff()
    single = (num_queries == 1).nonzero().flatten()
    if len(single) > 0:
        rows = query_starts[single].long()
        out[rows] = _attend_single(
            query[rows], key_cache, value_cache, block_tables[single], context_lens[single], form
        )
    starts, contexts = query_starts.tolist(), context_lens.tolist()
    for request in (num_queries > 1).nonzero().flatten().tolist():
        rows = slice(starts[request], starts[request + 1])
        table = block_tables[request : request + 1]
        keys, values = _gather(table, contexts[request], key_cache, value_cache)
        out[rows] = _attend_chunk(query[rows], keys, values, form)
    return out


def attention_probs(
    query: Tensor,
    key_cache: Tensor,
    block_tables: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    *,
    scale: float,
    alibi_slopes: Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Return what paged_attention weighs the values with.

    Shape [num_tokens, num_heads, max_context], float32: column j is position j of the token's own
    request, and columns past its context are 0. A tool to look with, only in this implementation:
    it holds all probabilities at once.
    """
    form = _Form(scale, alibi_slopes, window, softcap, sinks)
    starts, contexts = query_starts.tolist(), context_lens.tolist()
    probs = query.new_zeros(*query.shape[:2], max(contexts, default=0), dtype=torch.float32)
    for request, context in enumerate(contexts):
        rows = slice(starts[request], starts[request + 1])
        (keys,) = _gather(block_tables[request : request + 1], context, key_cache)
        weights = _probabilities(_group(query[rows], keys), keys, form)
        probs[rows, :, :context] = weights[0].flatten(0, 1).transpose(0, 1)
    return probs


def mix_values(
    probs: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
) -> Tensor:
    """Weigh the cached values with attention_probs' answer: [num_tokens, num_heads, head_dim]."""
    num_kv_heads, head_dim = value_cache.shape[1], value_cache.shape[3]
    out = value_cache.new_empty(*probs.shape[:2], head_dim)
    starts = query_starts.tolist()
    for request, context in enumerate(context_lens.tolist()):
        rows = slice(starts[request], starts[request + 1])
        (values,) = _gather(block_tables[request : request + 1], context, value_cache)
        weights = probs[rows, :, :context].unflatten(1, (num_kv_heads, -1))
        mixed = torch.einsum("qkgc,kcd->qkgd", weights, values[0].float())
        out[rows] = mixed.flatten(1, 2).to(out.dtype)
    return out


def _gather(block_tables: Tensor, context: int, *caches: Tensor) -> list[Tensor]:
    """Copy each request's blocks together: [requests, num_kv_heads, context, head_dim] per cache.

    One row of the copy is one block of one head, so the result needs no second copy to be laid
    out for the matrix products.
    """
    num_blocks, num_kv_heads, block_size, head_dim = caches[0].shape
    tables = block_tables[:, : -(-context // block_size)].long()
    heads = torch.arange(num_kv_heads, device=tables.device)
    rows = tables[:, None, :] * num_kv_heads + heads[:, None]  # [requests, num_kv_heads, blocks]
    shape = (len(tables), num_kv_heads, -1, head_dim)
    return [
        cache.view(num_blocks * num_kv_heads, -1)
        .index_select(0, rows.flatten())
        .view(shape)[:, :, :context]
        for cache in caches
    ]


def _group(query: Tensor, keys: Tensor) -> Tensor:
    """View one request's query [num_tokens, num_heads, head_dim] by the heads that share keys.

    Returns [1, num_kv_heads, group, num_tokens, head_dim].
    """
    return query.unflatten(1, (keys.shape[1], -1)).permute(1, 2, 0, 3).unsqueeze(0)


def _attend_single(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    form: _Form,
) -> Tensor:
    """Attend with one query per request, query [requests, num_heads, head_dim], in one batch."""
    longest = int(context_lens.max())
    keys, values = _gather(block_tables, longest, key_cache, value_cache)
    grouped = query.unflatten(1, (keys.shape[1], -1)).unsqueeze(3)
    weights = _probabilities(grouped, keys, form, context_lens).squeeze(3)
    # What lies past a context is another request's, or nobody's: its weight is 0, but 0 * nan is
    # nan, so a request that overflowed would spoil the next owner of its blocks.
    past = torch.arange(longest, device=query.device) >= context_lens[:, None]
    values.masked_fill_(past[:, None, :, None], 0)
    return (weights @ values.float()).flatten(1, 2).to(query.dtype)


def _attend_chunk(query: Tensor, keys: Tensor, values: Tensor, form: _Form) -> Tensor:
    """Attend from one request's queries [num_tokens, num_heads, head_dim] to its whole context."""
    grouped = _group(query, keys)
    group, num_tokens = grouped.shape[2:4]
    if form.softcap is None and form.sinks is None and form.alibi_slopes is None:
        # Folding the group into the rows lets the heads that share keys read them once.
        distance = _distance(num_tokens, keys.shape[2], query.device)
        visible = _visible(distance, form.window).repeat(group, 1)
        mixed = functional.scaled_dot_product_attention(
            grouped.flatten(2, 3), keys, values, attn_mask=visible, scale=form.scale
        )
    else:
        mixed = _probabilities(grouped, keys, form).flatten(2, 3) @ values.float()
    by_head = mixed.unflatten(2, (group, num_tokens))[0]
    return by_head.permute(2, 0, 1, 3).flatten(1, 2).to(query.dtype)


def _probabilities(
    query: Tensor, keys: Tensor, form: _Form, context_lens: Tensor | None = None
) -> Tensor:
    """Softmax of masked scores in float32: [requests, num_kv_heads, group, num_tokens, context].

    query [requests, num_kv_heads, group, num_tokens, head_dim], keys
    [requests, num_kv_heads, context, head_dim]. Without context_lens every request fills context.
    """
    group, num_tokens = query.shape[2:4]
    scores = query.flatten(2, 3).float() @ keys.float().transpose(-1, -2)
    scores = scores.unflatten(2, (group, num_tokens)).mul_(form.scale)
    if form.softcap is not None:
        scores = torch.tanh(scores / form.softcap) * form.softcap
    distance = _distance(num_tokens, keys.shape[2], query.device)
    if context_lens is not None:
        distance = distance - (keys.shape[2] - context_lens.view(-1, 1, 1, 1, 1))
    if form.alibi_slopes is not None:
        slopes = form.alibi_slopes.float().view(-1, group, 1, 1)
        scores = scores - slopes * distance
    scores = scores.masked_fill(~_visible(distance, form.window), -torch.inf)
    if form.sinks is None:
        return scores.softmax(dim=-1)
    sinks = form.sinks.float().view(1, -1, group, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat((scores, sinks), dim=-1).softmax(dim=-1)[..., :-1]


def _distance(num_tokens: int, context: int, device: torch.device) -> Tensor:
    """Count positions from each query back to each key [num_tokens, context]; the future is < 0."""
    positions = torch.arange(context, device=device)
    return positions[context - num_tokens :, None] - positions


def _visible(distance: Tensor, window: int | None) -> Tensor:
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)
