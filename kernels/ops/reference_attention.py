"""Attend over a paged cache in plain PyTorch: the oracle for faster versions to come.

Request path 7/8: from models.layers; what it returns goes back up, and logits to sampling.sampler.

Scores and their softmax are float32 whatever the dtype of the cache. The conventions of shapes are
those of reference.py, where these ops are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["attention_probs", "mix_values", "paged_attention"]


# Copies of keys or values of this size stay in a core's second-level cache, or nearly.
_PIECE_BYTES = 2 << 20


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
    """Attend with one query per request, query [requests, num_heads, head_dim], in one batch.

    Keys and values are gathered a few blocks at a time, for all requests that reach so far: the
    copies stay in the processor's cache, and a short context costs nothing beside a long one.
    """
    order = context_lens.argsort(descending=True)
    contexts, tables = context_lens[order], block_tables[order]
    grouped = query[order].unflatten(1, (key_cache.shape[1], -1)).float()
    pieces = list(_pieces(contexts, key_cache))
    scores = grouped.new_full((*grouped.shape[:3], int(contexts[0])), -torch.inf)
    for piece in pieces:
        keys = _gather_piece(tables, piece, key_cache)
        scores[: piece.num_requests, ..., piece.columns] = grouped[: piece.num_requests] @ keys.mT
    distance = contexts.view(-1, 1, 1, 1) - 1 - torch.arange(scores.shape[-1], device=query.device)
    weights = _normalise(scores.unsqueeze(3), distance.unsqueeze(3), form).squeeze(3)
    mixed = torch.zeros_like(grouped)
    for piece in pieces:
        values = _gather_piece(tables, piece, value_cache)
        # What lies past a context is another request's, or nobody's: its weight is 0, but 0 * nan
        # is nan, so a request that overflowed would spoil the next owner of its blocks.
        past = distance[: piece.num_requests, ..., piece.columns] < 0
        values.masked_fill_(past.mT, 0)
        mixed[: piece.num_requests] += weights[: piece.num_requests, ..., piece.columns] @ values
    out = torch.empty_like(query)
    out[order] = mixed.flatten(1, 2).to(query.dtype)
    return out


class _Piece(NamedTuple):
    """Some columns of the block tables, and how many requests (longest first) reach them."""

    num_requests: int
    blocks: slice
    columns: slice  # the positions that these blocks hold, cut at the longest context


def _pieces(contexts: Tensor, cache: Tensor) -> Iterator[_Piece]:
    """Cut descending contexts into pieces whose copy is about _PIECE_BYTES."""
    _, num_kv_heads, block_size, head_dim = cache.shape
    lengths = contexts.tolist()
    column_bytes = len(lengths) * num_kv_heads * block_size * head_dim * 4
    width = max(1, _PIECE_BYTES // column_bytes) * block_size
    num_requests = len(lengths)
    for start in range(0, lengths[0], width):
        while lengths[num_requests - 1] <= start:
            num_requests -= 1
        stop = min(start + width, lengths[0])
        blocks = slice(start // block_size, -(-stop // block_size))
        yield _Piece(num_requests, blocks, slice(start, stop))


def _gather_piece(tables: Tensor, piece: _Piece, cache: Tensor) -> Tensor:
    """Copy a piece in float32: [num_requests, num_kv_heads, positions, head_dim]."""
    num_positions = piece.columns.stop - piece.columns.start
    (copy,) = _gather(tables[: piece.num_requests, piece.blocks], num_positions, cache)
    return copy.float()


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


def _probabilities(query: Tensor, keys: Tensor, form: _Form) -> Tensor:
    """Weigh whole contexts: [requests, num_kv_heads, group, num_tokens, context] float32.

    query [requests, num_kv_heads, group, num_tokens, head_dim], keys
    [requests, num_kv_heads, context, head_dim]; the queries are the context's last positions.
    """
    group, num_tokens = query.shape[2:4]
    scores = query.flatten(2, 3).float() @ keys.float().mT
    distance = _distance(num_tokens, keys.shape[2], query.device)
    return _normalise(scores.unflatten(2, (group, num_tokens)), distance, form)


def _normalise(scores: Tensor, distance: Tensor, form: _Form) -> Tensor:
    """Turn query . key into probabilities over the last dimension; overwrites the scores.

    scores [requests, num_kv_heads, group, num_tokens, context] float32; distance broadcasts to it.
    """
    scores = scores.mul_(form.scale)
    if form.softcap is not None:
        scores = torch.tanh(scores / form.softcap) * form.softcap
    if form.alibi_slopes is not None:
        slopes = form.alibi_slopes.float().view(-1, scores.shape[2], 1, 1)
        scores = scores - slopes * distance
    scores = scores.masked_fill(~_visible(distance, form.window), -torch.inf)
    if form.sinks is None:
        return scores.softmax(dim=-1)
    sinks = form.sinks.float().view(1, -1, scores.shape[2], 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat((scores, sinks), dim=-1).softmax(dim=-1)[..., :-1]


def _distance(num_tokens: int, context: int, device: torch.device) -> Tensor:
    """Count positions from each query back to each key [num_tokens, context]; the future is < 0."""
    positions = torch.arange(context, device=device)
    return positions[context - num_tokens :, None] - positions


def _visible(distance: Tensor, window: int | None) -> Tensor:
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)
