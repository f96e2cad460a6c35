"""Norm, rotation and place in the cache of one token's heads: the kernel of rotary.py, write_kv.py.

Request path 7/8: from the launchers, into the blocks of cache.storage.
"""

import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels.triton.rounding import narrow

__all__ = ["move_heads"]

_TILE = 1024  # numbers that a program holds of each half
_NUM_WARPS = 4


@triton.jit
def _weigh(x, scale, weight, dtype: tl.constexpr):
    """Scale and weigh a part of normed heads, with rms_norm's roundings."""
    normed = narrow(x * scale[:, None], weight.dtype).to(tl.float32)
    weighed = narrow(normed * weight.to(tl.float32)[None, :], weight.dtype).to(tl.float32)
    return narrow(weighed, dtype).to(tl.float32)


@triton.jit
def _turn_heads(
    in_ptr,
    weight_ptr,
    out_ptr,
    cos_ptr,
    sin_ptr,
    angles,
    heads,
    num_heads,
    out_head_stride,
    eps,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST_BLOCK: tl.constexpr,
):
    """Normalise and turn a token's heads; a head is two halves that turn, and the rest."""
    dtype: tl.constexpr = in_ptr.dtype.element_ty
    in_ptrs = in_ptr + heads[:, None] * HEAD_DIM
    out_ptrs = out_ptr + heads[:, None].to(tl.int64) * out_head_stride
    is_head = heads[:, None] < num_heads
    pairs = tl.arange(0, HALF_BLOCK)
    firsts = 2 * pairs if INTERLEAVED else pairs
    seconds = firsts + 1 if INTERLEAVED else firsts + HALF
    rest = 2 * HALF + tl.arange(0, REST_BLOCK)
    is_pair, is_rest = is_head & (pairs < HALF)[None, :], is_head & (rest < HEAD_DIM)[None, :]
    if HALF > 0:
        first = tl.load(in_ptrs + firsts[None, :], mask=is_pair, other=0.0).to(tl.float32)
        second = tl.load(in_ptrs + seconds[None, :], mask=is_pair, other=0.0).to(tl.float32)
    if 2 * HALF < HEAD_DIM:
        tail = tl.load(in_ptrs + rest[None, :], mask=is_rest, other=0.0).to(tl.float32)
    if HAS_NORM:
        squares = tl.full(heads.shape, 0.0, tl.float32)
        if HALF > 0:
            squares += tl.sum(first * first + second * second, axis=1)
        if 2 * HALF < HEAD_DIM:
            squares += tl.sum(tail * tail, axis=1)
        scale = tl.rsqrt(squares / HEAD_DIM + eps)
        if HALF > 0:
            half_mask = pairs < HALF
            first_weight = tl.load(weight_ptr + firsts, mask=half_mask, other=0.0)
            second_weight = tl.load(weight_ptr + seconds, mask=half_mask, other=0.0)
            first = _weigh(first, scale, first_weight, dtype)
            second = _weigh(second, scale, second_weight, dtype)
        if 2 * HALF < HEAD_DIM:
            rest_weight = tl.load(weight_ptr + rest, mask=rest < HEAD_DIM, other=0.0)
            tail = _weigh(tail, scale, rest_weight, dtype)
    out_dtype: tl.constexpr = out_ptr.dtype.element_ty
    if HALF > 0:
        cos = tl.load(cos_ptr + angles + pairs, mask=pairs < HALF, other=0.0)[None, :]
        sin = tl.load(sin_ptr + angles + pairs, mask=pairs < HALF, other=0.0)[None, :]
        turned = narrow(first * cos - second * sin, out_dtype)
        tl.store(out_ptrs + firsts[None, :], turned, mask=is_pair)
        turned = narrow(second * cos + first * sin, out_dtype)
        tl.store(out_ptrs + seconds[None, :], turned, mask=is_pair)
    if 2 * HALF < HEAD_DIM:
        tl.store(out_ptrs + rest[None, :], narrow(tail, out_dtype), mask=is_rest)


@triton.jit
def _move_heads_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    query_out_ptr,
    key_out_ptr,
    value_out_ptr,
    slots_ptr,
    cos_ptr,
    sin_ptr,
    query_weight_ptr,
    key_weight_ptr,
    num_heads,
    num_kv_heads,
    query_stride,
    key_stride,
    value_stride,
    block_size,
    eps,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    HAS_NORM: tl.constexpr,
    CACHES: tl.constexpr,
    HEADS: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST_BLOCK: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
):
    """One program moves HEADS query heads of a token, or HEADS of its keys and values."""
    token = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    num_query_tiles = (num_heads + HEADS - 1) // HEADS
    angles = token * HALF
    if tile < num_query_tiles:
        _turn_heads(
            query_ptr + token * query_stride,
            query_weight_ptr,
            query_out_ptr + token * num_heads * HEAD_DIM,
            cos_ptr,
            sin_ptr,
            angles,
            tile * HEADS + tl.arange(0, HEADS),
            num_heads,
            HEAD_DIM,
            eps,
            HEAD_DIM,
            HALF,
            INTERLEAVED,
            HAS_NORM,
            HALF_BLOCK,
            REST_BLOCK,
        )
    else:
        heads = (tile - num_query_tiles) * HEADS + tl.arange(0, HEADS)
        place = token * num_kv_heads * HEAD_DIM
        head_stride = HEAD_DIM
        if CACHES:
            slot = tl.load(slots_ptr + token)
            place = slot // block_size * num_kv_heads * block_size + slot % block_size
            place = place * HEAD_DIM
            head_stride = block_size * HEAD_DIM
        _turn_heads(
            key_ptr + token * key_stride,
            key_weight_ptr,
            key_out_ptr + place,
            cos_ptr,
            sin_ptr,
            angles,
            heads,
            num_kv_heads,
            head_stride,
            eps,
            HEAD_DIM,
            HALF,
            INTERLEAVED,
            HAS_NORM,
            HALF_BLOCK,
            REST_BLOCK,
        )
        if CACHES:
            columns = tl.arange(0, DIM_BLOCK)[None, :]
            mask = (heads < num_kv_heads)[:, None] & (columns < HEAD_DIM)
            value_ptrs = value_ptr + token * value_stride + heads[:, None] * HEAD_DIM + columns
            value = tl.load(value_ptrs, mask=mask, other=0.0).to(tl.float32)
            out_ptrs = value_out_ptr + place + heads[:, None].to(tl.int64) * head_stride + columns
            tl.store(out_ptrs, narrow(value, value_out_ptr.dtype.element_ty), mask=mask)


def move_heads(
    query: Tensor | None,
    key: Tensor,
    value: Tensor | None,
    query_out: Tensor | None,
    key_out: Tensor,
    value_out: Tensor | None = None,
    slots: Tensor | None = None,
    *,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    interleaved: bool = False,
    head_norms: tuple[Tensor, Tensor, float] | None = None,
) -> None:
    """Move heads [num_tokens, heads, head_dim] to where they belong, normed and turned on the way.

    With ``slots`` the keys and values go into caches, else the keys into a tensor of key's shape,
    and there are no values. ``query`` None leaves the queries out; the rest is as in
    reference.rotary_write_kv.
    """
    num_tokens, num_kv_heads, head_dim = key.shape
    if num_tokens == 0:
        return
    num_heads = 0 if query is None else query.shape[1]
    # A null pointer cannot be moved, even where nothing is read: the key stands in.
    query, key, value = (_with_whole_heads(key if x is None else x) for x in (query, key, value))
    half = 0 if cos is None else cos.shape[1]
    query_weight, key_weight, eps = head_norms or (None, None, 0.0)
    half_block = triton.next_power_of_2(max(half, 1))
    rest_block = triton.next_power_of_2(max(head_dim - 2 * half, 1))
    most = triton.next_power_of_2(max(num_heads, num_kv_heads))
    heads = min(max(_TILE // max(half_block, rest_block), 1), most)
    _move_heads_kernel[
        (num_tokens, triton.cdiv(num_heads, heads) + triton.cdiv(num_kv_heads, heads))
    ](
        query,
        key,
        value,
        key_out if query_out is None else query_out,
        key_out,
        key_out if value_out is None else value_out,
        slots,
        None if cos is None else cos.contiguous(),
        None if sin is None else sin.contiguous(),
        query_weight,
        key_weight,
        num_heads,
        num_kv_heads,
        query.stride(0),
        key.stride(0),
        value.stride(0),
        1 if slots is None else key_out.shape[2],
        eps,
        HEAD_DIM=head_dim,
        HALF=half,
        INTERLEAVED=interleaved,
        HAS_NORM=head_norms is not None,
        CACHES=slots is not None,
        HEADS=heads,
        HALF_BLOCK=half_block,
        REST_BLOCK=rest_block,
        DIM_BLOCK=triton.next_power_of_2(head_dim),
        num_warps=_NUM_WARPS,
    )


def _with_whole_heads(x: Tensor) -> Tensor:
    """Return x with the heads of a token contiguous; copied if they are not."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
