"""Turn heads by their token's angles, alone or on the way into the cache.

Request path 7/8: from models.attention.
"""

from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.heads import move_heads
from toolkit.kernels.triton.rows import DTYPES

__all__ = ["rotary", "rotary_write_kv"]


def rotary(
    query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False
) -> tuple[Tensor, Tensor]:
    """Rotate pairs of dimensions of each head: reference.rotary."""
    if query.dtype not in DTYPES or key.dtype not in DTYPES:
        return reference.rotary(query, key, cos, sin, interleaved=interleaved)
    turned, keys = query.new_empty(query.shape), key.new_empty(key.shape)
    move_heads(query, key, None, turned, keys, cos=cos, sin=sin, interleaved=interleaved)
    return turned, keys


def rotary_write_kv(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    key_cache: Tensor,
    value_cache: Tensor,
    slots: Tensor,
    *,
    interleaved: bool = False,
    head_norms: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """Prepare heads for attention in one pass: reference.rotary_write_kv."""
    if any(x.dtype not in DTYPES for x in (query, key, value)):
        return reference.rotary_write_kv(
            query,
            key,
            value,
            cos,
            sin,
            key_cache,
            value_cache,
            slots,
            interleaved=interleaved,
            head_norms=head_norms,
        )
    if cos is None and head_norms is None:
        move_heads(None, key, value, None, key_cache, value_cache, slots)
        return query
    out = query.new_empty(query.shape)
    move_heads(
        query,
        key,
        value,
        out,
        key_cache,
        value_cache,
        slots,
        cos=cos,
        sin=sin,
        interleaved=interleaved,
        head_norms=head_norms,
    )
    return out
