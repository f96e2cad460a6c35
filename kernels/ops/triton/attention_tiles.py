"""Steps that the attention kernels share: softmax over tiles of keys that are read by block table.

Softmax runs online over tiles (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao 2023,
arXiv:2307.08691, section 3.1) in powers of two: exp(x) = exp2(x * log2(e)), and log2(e) is part of
a factor that the scores take anyway.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["LOG2_E", "LOWEST", "attend_tiles", "dot", "first_sums"]

LOG2_E = tl.constexpr(1.4426950408889634)
# Below every score, and finite: a row that has seen nothing yet needs no case of its own, since
# exp2(-inf - LOWEST) = 0 and exp2(LOWEST - LOWEST) = 1.
LOWEST = tl.constexpr(-1.0e30)
# The interpreter multiplies the bits of bfloat16 numbers as if they were integers.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b, acc):
    """Return acc + a @ b, summed in float32; float32 inputs are not rounded to TF32."""
    if _INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def _tanh(x):
    """Return tanh in float32, within some ulp also near 0, where 1 - 2 / (exp(2x) + 1) is not."""
    far = 1.0 - 2.0 / (tl.exp2(x * (2.0 * LOG2_E)) + 1.0)
    square = x * x
    # The Taylor series to x^9: below 1/4 the next term is under 1e-8 of the sum.
    series = square * (62.0 / 2835.0) - 17.0 / 315.0
    series = series * square + 2.0 / 15.0
    series = series * square - 1.0 / 3.0
    return tl.where(square < 0.0625, x + x * square * series, far)


@triton.jit
def first_sums(sinks_ptr, heads, valid, ROWS: tl.constexpr):
    """Return (peak, total) [ROWS] before the first key: a sink is a score without a value."""
    if sinks_ptr is None:
        peak = tl.full([ROWS], LOWEST, tl.float32)
        total = tl.zeros([ROWS], tl.float32)
    else:
        sinks = tl.load(sinks_ptr + heads, mask=valid, other=0.0).to(tl.float32) * LOG2_E
        peak = tl.maximum(sinks, LOWEST)  # a sink may be -inf
        total = tl.exp2(sinks - peak)
    return peak, total


@triton.jit
def attend_tiles(
    acc,  # [ROWS, WIDTH] float32: sum of exp2(score - peak) * value
    peak,  # [ROWS] float32: largest score so far, in powers of two
    total,  # [ROWS] float32: sum of exp2(score - peak)
    query,  # [ROWS, WIDTH]
    positions,  # [ROWS] int32: of the queries
    slopes,  # [ROWS] float32, or None
    key_ptr,  # of the first block, at this head
    value_ptr,
    table_ptr,  # this request's row
    context,
    first_tile,
    last_tile,  # exclusive
    block_stride,
    scale,
    softcap,  # or None
    window,  # or None
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,  # HEAD_DIM up to a power of two
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    MASKED: tl.constexpr,  # false where every row sees every position of these tiles
):
    """Return (acc, peak, total) after the keys and values of some tiles.

    Scores are held without their last factor, which goes into one fused multiply-add with the peak.
    Masked or not, a visible key takes the same operations: results do not depend on which rows
    share a program.
    """
    outer = scale if softcap is None else softcap
    factor = LOG2_E * (outer if slopes is None else 1.0)
    dims = tl.arange(0, WIDTH)
    wide = tl.full([WIDTH], True, tl.int1) if HEAD_DIM == WIDTH else dims < HEAD_DIM
    for tile in range(first_tile, last_tile):
        keys_at = tile * TILE + tl.arange(0, TILE)
        present = keys_at < context if MASKED else tl.full([TILE], True, tl.int1)
        blocks = tl.load(table_ptr + keys_at // BLOCK_SIZE, mask=present, other=0)
        rows_at = blocks.to(tl.int64) * block_stride + (keys_at % BLOCK_SIZE) * HEAD_DIM
        elements = rows_at[:, None] + dims[None, :]
        mask = present[:, None] & wide[None, :]
        keys = tl.load(key_ptr + elements, mask=mask, other=0.0)
        scores = dot(query, tl.trans(keys), tl.zeros([query.shape[0], TILE], tl.float32))
        distance = positions[:, None] - keys_at[None, :]
        if softcap is not None:
            scores = _tanh(scores * (scale / softcap))
        if slopes is not None:
            scores = scores * outer - slopes[:, None] * distance
        if MASKED:
            visible = distance >= 0
            if window is not None:
                visible &= distance < window
            scores = tl.where(visible, scores, -float("inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1) * factor)
        weights = tl.exp2(tl.fma(scores, factor, -new_peak[:, None]))
        fade = tl.exp2(peak - new_peak)
        total = total * fade + tl.sum(weights, 1)
        values = tl.load(value_ptr + elements, mask=mask, other=0.0)
        acc = dot(weights.to(values.dtype), values, acc * fade[:, None])
        peak = new_peak
    return acc, peak, total
