"""Drop unlikely tokens by one threshold per row, which is searched for, not sorted for.

A row's threshold lies between two logits that close in on each other: each pass over the row counts
the tokens, or sums the probabilities, above three places between the two, which leaves a quarter.
Places are the bits of a float32 read as an integer, in the floats' order, so that 16 passes find
any threshold exactly; most searches end sooner, when what is still open is a single token.

Request path 8/8: from sampling.chain.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference_sampling

__all__ = ["cut_unlikely"]

# One program has a row to itself: four numbers a thread at a time.
_BLOCK = 4096
_NUM_WARPS = 32


@triton.jit
def _place(x):
    """Return the integers, int32, that are in the order of the floats; one for both zeros."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _tally(
    row_ptr,
    vocab_size,
    first,
    second,
    third,
    largest,
    SUMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count the tokens at or above three places; with SUMS, add up exp(logit - largest) too."""
    columns = tl.arange(0, BLOCK)
    first_count = tl.full((BLOCK,), 0, tl.int32)
    second_count, third_count = first_count, first_count
    first_sum = tl.full((BLOCK,), 0.0, tl.float32)
    second_sum, third_sum = first_sum, first_sum
    for start in range(0, vocab_size, BLOCK):
        mask = start + columns < vocab_size
        x = tl.load(row_ptr + start + columns, mask=mask, other=float("-inf"))
        places = _place(x)
        reaches_first = mask & (places >= first)
        reaches_second = mask & (places >= second)
        reaches_third = mask & (places >= third)
        first_count += reaches_first.to(tl.int32)
        second_count += reaches_second.to(tl.int32)
        third_count += reaches_third.to(tl.int32)
        if SUMS:
            weights = tl.exp(x - largest)
            first_sum += tl.where(reaches_first, weights, 0.0)
            second_sum += tl.where(reaches_second, weights, 0.0)
            third_sum += tl.where(reaches_third, weights, 0.0)
    return (
        tl.sum(first_count, axis=0),
        tl.sum(second_count, axis=0),
        tl.sum(third_count, axis=0),
        tl.sum(first_sum.to(tl.float64), axis=0),
        tl.sum(second_sum.to(tl.float64), axis=0),
        tl.sum(third_sum.to(tl.float64), axis=0),
    )


@triton.jit
def _search(
    row_ptr,
    vocab_size,
    low,
    high,
    target,
    largest,
    SUMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return a place that the tokens which reach ``target`` are at or above, and no other is.

    They are the fewest most likely ones, ties included, whose number (or sum, with SUMS) is at
    least the target. Those at or above ``low`` reach it, those at or above ``high`` do not.
    """
    # What is at or above low and high; the low one is an upper bound until it has been counted.
    low_count, high_count = vocab_size, 0
    while (high - low > 1) & (low_count > (high_count + 1 if SUMS else target)):
        width = high - low
        first, second, third = low + width // 4, low + width // 2, low + 3 * width // 4
        first_count, second_count, third_count, first_sum, second_sum, third_sum = _tally(
            row_ptr,
            vocab_size,
            first.to(tl.int32),
            second.to(tl.int32),
            third.to(tl.int32),
            largest,
            SUMS,
            BLOCK,
        )
        if SUMS:
            in_first, in_second = first_sum >= target, second_sum >= target
            in_third = third_sum >= target
        else:
            in_first, in_second = first_count >= target, second_count >= target
            in_third = third_count >= target
        high_count = tl.where(
            in_third,
            high_count,
            tl.where(in_second, third_count, tl.where(in_first, second_count, first_count)),
        )
        low_count = tl.where(
            in_third,
            third_count,
            tl.where(in_second, second_count, tl.where(in_first, first_count, low_count)),
        )
        new_high = tl.where(in_second, third, tl.where(in_first, second, first))
        new_low = tl.where(in_second, second, tl.where(in_first, first, low))
        high, low = tl.where(in_third, high, new_high), tl.where(in_third, third, new_low)
    return low


@triton.jit
def _cut_unlikely_kernel(
    logits_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    vocab_size,
    row_stride,
    HAS_TOP_P: tl.constexpr,
    HAS_MIN_P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Set what is below the row's threshold to -inf."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    columns = tl.arange(0, BLOCK)
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    least = tl.full((BLOCK,), float("inf"), tl.float32)
    for start in range(0, vocab_size, BLOCK):
        mask = start + columns < vocab_size
        x = tl.load(row_ptr + start + columns, mask=mask, other=float("-inf"))
        most = tl.maximum(most, x)
        least = tl.minimum(least, tl.where(mask, x, float("inf")))
    largest, smallest = tl.max(most, axis=0), tl.min(least, axis=0)
    low, high = _place(smallest).to(tl.int64), _place(largest).to(tl.int64) + 1
    largest = tl.where(largest > float("-inf"), largest, 0.0)  # a row without any has failed

    top_k = tl.load(top_k_ptr + row)
    if top_k < vocab_size:
        low = _search(row_ptr, vocab_size, low, high, top_k, largest, False, BLOCK)
    if HAS_TOP_P:
        top_p = tl.load(top_p_ptr + row)
        if top_p < 1.0:
            # All tokens below this one together have less than 1 - p.
            margin = tl.log(vocab_size / (1.0 - top_p)) + 1.0
            bottom = low.to(tl.int32)
            _, _, _, total, _, _ = _tally(
                row_ptr, vocab_size, bottom, bottom, bottom, largest, True, BLOCK
            )
            target = top_p.to(tl.float64) * total
            low = tl.maximum(low, _place(largest - margin).to(tl.int64))
            low = _search(row_ptr, vocab_size, low, high, target, largest, True, BLOCK)
    floor = float("-inf")
    if HAS_MIN_P:
        min_p = tl.load(min_p_ptr + row)
        floor = tl.where(min_p > 0.0, largest + tl.log(tl.where(min_p > 0.0, min_p, 1.0)), floor)
    place = low.to(tl.int32)
    for start in range(0, vocab_size, BLOCK):
        mask = start + columns < vocab_size
        x = tl.load(row_ptr + start + columns, mask=mask, other=float("-inf"))
        is_cut = mask & ((_place(x) < place) | (x < floor))
        tl.store(row_ptr + start + columns, float("-inf"), mask=is_cut)


def cut_unlikely(
    logits: Tensor,
    *,
    top_k: Tensor,
    max_top_k: int,
    top_p: Tensor | None,
    min_p: Tensor | None,
) -> Tensor:
    """Apply top-k, top-p and min-p in place: reference_sampling.cut_unlikely.

    Where the sum of probabilities comes within rounding of p, one token more or less may be kept
    than there.
    """
    if logits.dtype is not torch.float32:
        return reference_sampling.cut_unlikely(
            logits, top_k=top_k, max_top_k=max_top_k, top_p=top_p, min_p=min_p
        )
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    num_rows, vocab_size = logits.shape
    if num_rows > 0:
        _cut_unlikely_kernel[(num_rows,)](
            logits,
            top_k.contiguous(),
            None if top_p is None else top_p.contiguous(),
            None if min_p is None else min_p.contiguous(),
            vocab_size,
            logits.stride(0),
            HAS_TOP_P=top_p is not None,
            HAS_MIN_P=min_p is not None,
            BLOCK=_BLOCK,
            num_warps=_NUM_WARPS,
        )
    return logits
