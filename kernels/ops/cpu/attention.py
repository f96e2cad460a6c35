"""Attend over a paged cache in C++: src/attention.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.kernels.cpu.library import DTYPES, Library, pointer

__all__ = ["NO_WINDOW", "paged_attention"]

# Further than any context: a query sees all of it.
NO_WINDOW = 2**62


def paged_attention(
    library: Library,
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
    batch_invariant: bool = False,
) -> Tensor:
    """Attend causally, as reference.paged_attention does, with keys and values read in place.

    Arguments and result are reference's, after the compiled library; query and caches have one
    dtype: float32, bfloat16 or float16. Products of bfloat16 caches are summed in float32, of
    probabilities rounded to bfloat16 where the CPU multiplies it. ``batch_invariant``: a query's
    result is bitwise the same whatever else the batch holds and however its request was cut into
    chunks; single tokens then take longer.
    """
    num_tokens, num_heads, head_dim = query.shape
    num_kv_heads, block_size = key_cache.shape[1:3]
    assert query.dtype == key_cache.dtype == value_cache.dtype
    if query.stride(2) != 1 or query.stride(1) != head_dim:
        query = query.contiguous()
    out = query.new_empty(num_tokens, num_heads, head_dim)
    slopes, sinks = (_floats(x) for x in (alibi_slopes, sinks))
    library.paged_attention(
        pointer(query),
        pointer(key_cache),
        pointer(value_cache),
        pointer(out),
        pointer(block_tables),
        pointer(query_starts),
        pointer(context_lens),
        pointer(slopes),
        pointer(sinks),
        len(context_lens),
        num_heads,
        num_kv_heads,
        head_dim,
        block_size,
        block_tables.stride(0),
        query.stride(0),
        NO_WINDOW if window is None else window,
        scale,
        softcap or 0.0,
        batch_invariant,
        DTYPES[query.dtype],
    )
    return out


def _floats(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.float32).contiguous()
