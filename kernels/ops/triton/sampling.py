"""Choose a token per row: the largest logit, or the winner of a race, in one pass over the logits.

A row is cut into chunks of one size, each with a program of its own; a second kernel takes the best
of the chunks. The largest of numbers is the same in any order, so nothing depends on the batch.

Request path 8/8: from sampling.sampler.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference_sampling

__all__ = ["argmax", "race"]

_CHUNK = 4096
_NUM_WARPS = 8

# SplitMix64, as in reference_sampling.py.
_GAMMA = tl.constexpr(0x9E3779B97F4A7C15)
_FIRST = tl.constexpr(0xBF58476D1CE4E5B9)
_SECOND = tl.constexpr(0x94D049BB133111EB)
_MOST_BITS = tl.constexpr((1 << 52) - 1)
_UNIT = tl.constexpr(2.0**-52)
# More than every rounding on the way to a bound of the noise, and for the sum with a logit a share
# of it: float32 has 24 bits.
_SLACK = tl.constexpr(1e-3)
_RELATIVE_SLACK = tl.constexpr(2.0**-22)
_LARGEST = tl.constexpr(3.4028234e38)  # of float32


@triton.jit
def _token_bits(key, token_ids):
    """Return 52 random bits for a row's key and token ids, as uint64."""
    z = key + (token_ids.to(tl.uint64) + 1) * _GAMMA
    z = (z ^ (z >> 30)) * _FIRST
    z = (z ^ (z >> 27)) * _SECOND
    return (z ^ (z >> 31)) >> 12


@triton.jit
def _gumbel_noise(bits):
    """Return -log(-log(u)), float64, for u = (bits + 1/2) * 2^-52."""
    return -tl.log(-tl.log((bits.to(tl.float64) + 0.5) * _UNIT))


@triton.jit
def _noise_bound(bits):
    """Return what the noise does not exceed, float32: -log(-log(u)) <= -log(1 - u)."""
    return -tl.log(((bits ^ _MOST_BITS).to(tl.float32) + 0.5) * _UNIT) + _SLACK


@triton.jit
def _race_kernel(
    logits_ptr,
    keys_ptr,
    scores_ptr,
    tokens_ptr,
    vocab_size,
    row_stride,
    CHUNK: tl.constexpr,
):
    """Find the largest of logit + noise in one chunk.

    Every token gets a cheap bound of its score; only those that may lead by it, a few of a chunk,
    get the exact score in float64, best bound first.
    """
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token_ids = chunk * CHUNK + tl.arange(0, CHUNK)
    logits_ptr += row * row_stride
    logits = tl.load(logits_ptr + token_ids, mask=token_ids < vocab_size, other=float("-inf"))
    key = tl.load(keys_ptr + row).to(tl.uint64, bitcast=True)
    bounds = logits + _noise_bound(_token_bits(key, token_ids))
    bounds += tl.minimum(tl.abs(bounds), _LARGEST) * _RELATIVE_SLACK
    best = tl.full((), float("-inf"), tl.float64)
    token = chunk * CHUNK
    bound, place = tl.max(bounds, axis=0, return_indices=True)
    while (bound > float("-inf")) & (bound.to(tl.float64) >= best):
        candidate = chunk * CHUNK + place
        noise = _gumbel_noise(_token_bits(key, candidate))
        score = tl.load(logits_ptr + candidate).to(tl.float64) + noise
        leads = (score > best) | ((score == best) & (candidate < token))
        best, token = tl.where(leads, score, best), tl.where(leads, candidate, token)
        bounds = tl.where(token_ids == candidate, float("-inf"), bounds)
        bound, place = tl.max(bounds, axis=0, return_indices=True)
    out = row * tl.num_programs(1) + chunk
    tl.store(scores_ptr + out, best)
    tl.store(tokens_ptr + out, token)


@triton.jit
def _argmax_kernel(logits_ptr, values_ptr, tokens_ptr, vocab_size, row_stride, CHUNK: tl.constexpr):
    """Find the first of the largest logits in one chunk; its value is NaN if there is any."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token_ids = chunk * CHUNK + tl.arange(0, CHUNK)
    ptrs = logits_ptr + row * row_stride + token_ids
    logits = tl.load(ptrs, mask=token_ids < vocab_size, other=float("-inf"))
    is_nan = logits != logits
    value, place = tl.max(tl.where(is_nan, float("-inf"), logits), axis=0, return_indices=True)
    value = tl.where(tl.max(is_nan.to(tl.int32), axis=0) > 0, float("nan"), value)
    out = row * tl.num_programs(1) + chunk
    tl.store(values_ptr + out, value)
    tl.store(tokens_ptr + out, chunk * CHUNK + place)


@triton.jit
def _merge_kernel(
    values_ptr,
    chunk_tokens_ptr,
    tokens_ptr,
    is_sound_ptr,
    num_chunks,
    JUDGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Take the best of a row's chunks, of several the first; judge whether the row is sound."""
    row = tl.program_id(0).to(tl.int64)
    chunks = tl.arange(0, BLOCK)
    parts = row * num_chunks + chunks
    values = tl.load(values_ptr + parts, mask=chunks < num_chunks, other=float("-inf"))
    is_nan = values != values
    best, place = tl.max(tl.where(is_nan, float("-inf"), values), axis=0, return_indices=True)
    token = tl.load(chunk_tokens_ptr + row * num_chunks + place)
    tl.store(tokens_ptr + row, token.to(tl.int64))
    if JUDGES:
        has_nan = tl.max(is_nan.to(tl.int32), axis=0) > 0
        is_finite = (best > float("-inf")) & (best < float("inf"))
        tl.store(is_sound_ptr + row, is_finite & (has_nan == 0))


def race(logits: Tensor, keys: Tensor) -> Tensor:
    """Draw one token per row from the softmax of its logits: reference_sampling.race.

    The noise is the reference's, but for the last bits of the logarithms.
    """
    if logits.dtype is not torch.float32:
        return reference_sampling.race(logits, keys)
    logits = _as_rows(logits)
    num_rows, vocab_size = logits.shape
    num_chunks = triton.cdiv(vocab_size, _CHUNK)
    scores = logits.new_empty(num_rows, num_chunks, dtype=torch.float64)
    chunk_tokens = logits.new_empty(num_rows, num_chunks, dtype=torch.int32)
    if num_rows > 0:
        _race_kernel[(num_rows, num_chunks)](
            logits,
            keys.contiguous(),
            scores,
            chunk_tokens,
            vocab_size,
            logits.stride(0),
            CHUNK=_CHUNK,
            num_warps=_NUM_WARPS,
        )
    return _merge(scores, chunk_tokens, None)


def argmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Find the largest logit of each row: reference_sampling.argmax."""
    if logits.dtype is not torch.float32:
        return reference_sampling.argmax(logits)
    logits = _as_rows(logits)
    num_rows, vocab_size = logits.shape
    num_chunks = triton.cdiv(vocab_size, _CHUNK)
    values = logits.new_empty(num_rows, num_chunks)
    chunk_tokens = logits.new_empty(num_rows, num_chunks, dtype=torch.int32)
    if num_rows > 0:
        _argmax_kernel[(num_rows, num_chunks)](
            logits,
            values,
            chunk_tokens,
            vocab_size,
            logits.stride(0),
            CHUNK=_CHUNK,
            num_warps=_NUM_WARPS,
        )
    is_sound = logits.new_empty(num_rows, dtype=torch.bool)
    return _merge(values, chunk_tokens, is_sound), is_sound


def _merge(values: Tensor, chunk_tokens: Tensor, is_sound: Tensor | None) -> Tensor:
    num_rows, num_chunks = values.shape
    tokens = values.new_empty(num_rows, dtype=torch.int64)
    if num_rows > 0:
        _merge_kernel[(num_rows,)](
            values,
            chunk_tokens,
            tokens,
            is_sound,
            num_chunks,
            JUDGES=is_sound is not None,
            BLOCK=triton.next_power_of_2(num_chunks),
            num_warps=1,
        )
    return tokens


def _as_rows(logits: Tensor) -> Tensor:
    """Return the logits with each row contiguous; copied if they are not."""
    return logits if logits.stride(1) == 1 else logits.contiguous()
