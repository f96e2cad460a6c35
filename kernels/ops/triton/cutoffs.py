"""Drop unlikely tokens by one threshold per row, which is searched for, not sorted for.

A row's threshold lies between two logits that close in on each other. Each pass over the row has
programs for its pieces: they count the tokens, or add up the probabilities, at or above 15 places
between the two, and so leave a sixteenth. Places are the bits of a float32 read as an integer, in
the floats' order, so that 8 passes find any threshold exactly.

What programs add up together are whole numbers, probabilities too: their sum is the same in any
order, and a row keeps the same tokens in every batch.

Request path 8/8: from sampling.chain.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference_sampling

__all__ = ["cut_unlikely"]

_BLOCK = 1024  # logits that a program looks at in one go: 64 tallies a thread of 8 warps
_NUM_WARPS = 8
# Programs of a pass, over all rows: two for each of an H100's multiprocessors.
_NUM_PROGRAMS = 264
_NUM_PASSES = tl.constexpr(8)  # each leaves 1 / 16 of 2^32 places
_PARTS = tl.constexpr(16)
# A probability's unit, of the largest one: 2^18 tokens of 2^40 units stay below 2^63, and what is
# cut off of 2^18 tokens is less than float32's rounding of one.
_UNITS = tl.constexpr(2.0**40)
_LOWEST_PLACE = tl.constexpr(-(1 << 31))
# A row's scratch: the places of its largest and smallest logit, each counted up from 0, then for
# top-k and for top-p the interval before each pass and the tallies of it.
_INTERVALS = tl.constexpr(2)
_SEARCH = tl.constexpr(2 * 8 + 16 * 8)
_SCRATCH = tl.constexpr(2 + 2 * (2 * 8 + 16 * 8))


@triton.jit
def _place(x):
    """Return the integers, int32, that are in the order of the floats; one for both zeros."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _logit(place):
    """Return the float of a place, int64."""
    bits = place.to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _row(logits_ptr, row_stride, BLOCK: tl.constexpr):
    """Return pointers to the first logits of this program's row that it looks at, and columns.

    From one block to its next it goes ``BLOCK * tl.num_programs(1)`` on.
    """
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return logits_ptr + tl.program_id(0).to(tl.int64) * row_stride, columns


@triton.jit
def _bounds(scratch_ptr):
    """Return the places, int64, of the row's smallest and largest logit, and that one, finite."""
    high = tl.load(scratch_ptr) + _LOWEST_PLACE
    low = -1 - tl.load(scratch_ptr + 1) - _LOWEST_PLACE
    largest = _logit(high)
    return low, high, tl.where(tl.abs(largest) < float("inf"), largest, 0.0)


@triton.jit
def _cut_place(low, high, part):
    return low + (high - low) * part // _PARTS


@triton.jit
def _narrowed(search_ptr, number, target):
    """Return the interval that pass ``number`` leaves: its low end reaches the target."""
    low = tl.load(search_ptr + 2 * number)
    high = tl.load(search_ptr + 2 * number + 1)
    parts = tl.arange(0, _PARTS)  # 0 is low itself, which has not been tallied
    tallies = tl.load(search_ptr + 2 * _NUM_PASSES + _PARTS * number + parts)
    num_in = tl.sum(((parts > 0) & (tallies.to(tl.float64) >= target)).to(tl.int64), axis=0)
    is_open = high - low > 1
    new_high = tl.where(num_in == _PARTS - 1, high, _cut_place(low, high, num_in + 1))
    return (
        tl.where(is_open, _cut_place(low, high, num_in), low),
        tl.where(is_open, new_high, high),
    )


@triton.jit
def _after_top_k(scratch_ptr, top_k_ptr, vocab_size):
    """Return the place, int64, of the row's k-th largest logit, or of its smallest."""
    low, _, _ = _bounds(scratch_ptr)
    top_k = tl.load(top_k_ptr + tl.program_id(0))
    found, _ = _narrowed(scratch_ptr + _INTERVALS, _NUM_PASSES - 1, top_k.to(tl.float64))
    return tl.where(top_k < vocab_size, found, low)


@triton.jit
def _target(scratch_ptr, top_p):
    """Return how much probability is to be kept: a share of what the first pass of top-p found."""
    total = tl.load(scratch_ptr + _INTERVALS + _SEARCH + 2 * _NUM_PASSES)
    return top_p.to(tl.float64) * total.to(tl.float64)


@triton.jit
def _bounds_kernel(logits_ptr, scratch_ptr, vocab_size, row_stride, BLOCK: tl.constexpr):
    """Find the row's largest and smallest logit; grid (rows, programs), as of all kernels here."""
    scratch_ptr += tl.program_id(0).to(tl.int64) * _SCRATCH
    row_ptr, columns = _row(logits_ptr, row_stride, BLOCK)
    most = tl.full((BLOCK,), _LOWEST_PLACE, tl.int64)
    least = -1 - most
    for start in range(0, vocab_size, BLOCK * tl.num_programs(1)):
        here = start + columns < vocab_size
        x = tl.load(row_ptr + start + columns, mask=here, other=0.0)
        places = _place(x).to(tl.int64)
        most = tl.maximum(most, tl.where(here, places, _LOWEST_PLACE))
        least = tl.minimum(least, tl.where(here, places, -1 - _LOWEST_PLACE))
    # Both counted up from 0, which the scratch is filled with.
    tl.atomic_max(scratch_ptr, tl.max(most, axis=0) - _LOWEST_PLACE)
    tl.atomic_max(scratch_ptr + 1, -1 - tl.min(least, axis=0) - _LOWEST_PLACE)


@triton.jit(do_not_specialize=["number"])
def _top_k_kernel(
    logits_ptr, scratch_ptr, top_k_ptr, vocab_size, row_stride, number, BLOCK: tl.constexpr
):
    """Count the tokens at or above the places of a pass."""
    scratch_ptr += tl.program_id(0).to(tl.int64) * _SCRATCH
    top_k = tl.load(top_k_ptr + tl.program_id(0))
    if top_k >= vocab_size:
        return
    search_ptr = scratch_ptr + _INTERVALS
    if number == 0:
        low, high, _ = _bounds(scratch_ptr)
        high += 1
    else:
        low, high = _narrowed(search_ptr, number - 1, top_k.to(tl.float64))
    if tl.program_id(1) == 0:
        tl.store(search_ptr + 2 * number, low)
        tl.store(search_ptr + 2 * number + 1, high)
    if high - low <= 1:
        return
    row_ptr, columns = _row(logits_ptr, row_stride, BLOCK)
    parts = tl.arange(0, _PARTS)
    cuts = _cut_place(low, high, parts)[:, None]
    counts = tl.full((_PARTS, BLOCK), 0, tl.int32)
    for start in range(0, vocab_size, BLOCK * tl.num_programs(1)):
        here = start + columns < vocab_size
        x = tl.load(row_ptr + start + columns, mask=here, other=0.0)
        counts += (here[None, :] & (_place(x).to(tl.int64)[None, :] >= cuts)).to(tl.int32)
    tallies_ptr = search_ptr + 2 * _NUM_PASSES + _PARTS * number
    tl.atomic_add(tallies_ptr + parts, tl.sum(counts, axis=1).to(tl.int64), sem="relaxed")


@triton.jit(do_not_specialize=["number"])
def _top_p_kernel(
    logits_ptr,
    scratch_ptr,
    top_k_ptr,
    top_p_ptr,
    vocab_size,
    row_stride,
    number,
    BLOCK: tl.constexpr,
):
    """Add up the probabilities at or above the places of a pass; the first adds up all, too."""
    scratch_ptr += tl.program_id(0).to(tl.int64) * _SCRATCH
    top_p = tl.load(top_p_ptr + tl.program_id(0))
    if top_p >= 1.0:
        return
    search_ptr = scratch_ptr + _INTERVALS + _SEARCH
    _, high, largest = _bounds(scratch_ptr)
    bottom = _after_top_k(scratch_ptr, top_k_ptr, vocab_size)
    if number == 0:
        # All tokens below this one together have less than 1 - p.
        margin = tl.log(vocab_size / (1.0 - top_p)) + 1.0
        low, high = tl.maximum(bottom, _place(largest - margin).to(tl.int64)), high + 1
    else:
        low, high = _narrowed(search_ptr, number - 1, _target(scratch_ptr, top_p))
    if tl.program_id(1) == 0:
        tl.store(search_ptr + 2 * number, low)
        tl.store(search_ptr + 2 * number + 1, high)
    if (number > 0) & (high - low <= 1):
        return
    row_ptr, columns = _row(logits_ptr, row_stride, BLOCK)
    parts = tl.arange(0, _PARTS)
    # The first of the first pass is not low, but what all kept tokens reach.
    cuts = tl.where((parts == 0) & (number == 0), bottom, _cut_place(low, high, parts))[:, None]
    sums = tl.full((_PARTS, BLOCK), 0, tl.int64)
    for start in range(0, vocab_size, BLOCK * tl.num_programs(1)):
        here = start + columns < vocab_size
        x = tl.load(row_ptr + start + columns, mask=here, other=float("-inf"))
        shares = tl.exp(tl.minimum(tl.where(x == x, x, float("-inf")) - largest, 0.0))
        units = tl.where(here, shares * _UNITS, 0.0).to(tl.int64)
        sums += tl.where(_place(x).to(tl.int64)[None, :] >= cuts, units[None, :], 0)
    tallies_ptr = search_ptr + 2 * _NUM_PASSES + _PARTS * number
    tl.atomic_add(tallies_ptr + parts, tl.sum(sums, axis=1), sem="relaxed")


@triton.jit
def _cut_kernel(
    logits_ptr,
    scratch_ptr,
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
    scratch_ptr += tl.program_id(0).to(tl.int64) * _SCRATCH
    _, _, largest = _bounds(scratch_ptr)
    low = _after_top_k(scratch_ptr, top_k_ptr, vocab_size)
    if HAS_TOP_P:
        top_p = tl.load(top_p_ptr + tl.program_id(0))
        search_ptr = scratch_ptr + _INTERVALS + _SEARCH
        found, _ = _narrowed(search_ptr, _NUM_PASSES - 1, _target(scratch_ptr, top_p))
        low = tl.where(top_p < 1.0, found, low)
    floor = float("-inf")
    if HAS_MIN_P:
        min_p = tl.load(min_p_ptr + tl.program_id(0))
        floor = tl.where(min_p > 0.0, largest + tl.log(tl.where(min_p > 0.0, min_p, 1.0)), floor)
    row_ptr, columns = _row(logits_ptr, row_stride, BLOCK)
    for start in range(0, vocab_size, BLOCK * tl.num_programs(1)):
        here = start + columns < vocab_size
        x = tl.load(row_ptr + start + columns, mask=here, other=0.0)
        is_cut = here & ((_place(x).to(tl.int64) < low) | (x < floor))
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
    if num_rows == 0:
        return logits
    most_pieces = triton.cdiv(vocab_size, _BLOCK)
    grid = (num_rows, max(1, min(most_pieces, _NUM_PROGRAMS // num_rows)))
    scratch = torch.zeros(num_rows, _SCRATCH.value, dtype=torch.int64, device=logits.device)
    top_k = top_k.contiguous()
    top_p = None if top_p is None else top_p.contiguous()
    sizes = (vocab_size, logits.stride(0))
    options = {"BLOCK": _BLOCK, "num_warps": _NUM_WARPS}
    _bounds_kernel[grid](logits, scratch, *sizes, **options)
    for number in range(_NUM_PASSES.value):
        _top_k_kernel[grid](logits, scratch, top_k, *sizes, number, **options)
    for number in range(_NUM_PASSES.value if top_p is not None else 0):
        where = (logits, scratch, top_k, top_p)
        _top_p_kernel[grid](*where, *sizes, number, **options)
    _cut_kernel[grid](
        logits,
        scratch,
        top_k,
        top_p,
        None if min_p is None else min_p.contiguous(),
        *sizes,
        HAS_TOP_P=top_p is not None,
        HAS_MIN_P=min_p is not None,
        **options,
    )
    return logits
