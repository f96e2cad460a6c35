"""Linear maps on the CPU whose weights are kept in 8 or 4 bits.

Weights are quantised when a model is loaded: 8 bits with a scale for each output channel, 4 bits
with a scale for each 32 inputs of a channel. Products are of whole numbers (src/quantized.h), so
activations are quantised too, anew for each row: to nearly 16 bits where that costs nothing, since
few rows only wait for the weights, and to 8 bits for many rows. ``path(rows)`` says which.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.kernels.cpu.library import Library
from toolkit.kernels.cpu.linears import CompiledLinear

__all__ = ["QuantizedLinear", "pack_int4", "pack_int8"]

# src/quantized.h: channels of a block, of which AMX takes two; inputs of a tile; inputs of a scale.
_BLOCK, _PANEL, _CHUNK, _GROUP = 16, 32, 64, 32
# Sums of products stay in int32 up to here: 255 * 127 * inputs < 2**31.
_MAX_IN_FEATURES = 1 << 16
# Numbers quantised at once, so that temporaries stay in the cache.
_PIECE = 1 << 18
# A number of rows that no batch has.
_NEVER = sys.maxsize

# By bits of a weight, as kernels/bench/linear_cpu.py measured. Up to so many rows 16-bit
# activations take no longer than oneDNN in bfloat16 does, on a processor with AMX and on others:
_EXACT_ROWS_WITH_TILES = 128
_EXACT_ROWS = {8: 8, 4: 4}
# From so many on AMX tiles are faster than vector registers.
_TILE_ROWS = {8: 3, 4: 12}


def pack_int8(
    library: Library, weight: Tensor, bias: Tensor | None, *, exact_rows: int | None = None
) -> QuantizedLinear:
    """Quantise a matrix [out, in] to 8 bits, symmetric, with a float32 scale for each channel."""
    numbers, scales = _by_pieces(_quantize_to_8_bits, weight)
    padded = _pad(numbers.add_(128), 128)
    parts = _in_blocks(padded), _pad_rows(scales), _padded_bias(weight, bias)
    return QuantizedLinear(
        library, 8, parts, (weight.shape[0], weight.shape[1]), weight.dtype, exact_rows=exact_rows
    )


def pack_int4(
    library: Library, weight: Tensor, bias: Tensor | None, *, exact_rows: int | None = None
) -> QuantizedLinear:
    """Quantise a matrix [out, in] to 4 bits, symmetric, with a bfloat16 scale for each 32 inputs.

    4.5 bits a weight. Of several scales the one with the least squared error is taken.
    """
    in_features = weight.shape[1]
    numbers, scales = _by_pieces(_quantize_to_4_bits, weight)
    padded = _pad(numbers[:, :in_features].add_(8), 8)
    # [blocks, in / 8, 2 halves, 64]: the halves of a byte are neighbours along `in`.
    halves = _in_blocks(padded).view(padded.shape[0] // _BLOCK, -1, 2, 64)
    packed = halves[:, :, 0] | halves[:, :, 1] << 4
    padded_scales = _pad_rows(scales)
    missing = padded.shape[1] // _GROUP - scales.shape[1]
    padded_scales = torch.nn.functional.pad(padded_scales, (0, missing))
    blocked = padded_scales.view(-1, _BLOCK, padded.shape[1] // _GROUP).transpose(1, 2)
    parts = packed, blocked.contiguous(), _padded_bias(weight, bias)
    return QuantizedLinear(
        library, 4, parts, (weight.shape[0], in_features), weight.dtype, exact_rows=exact_rows
    )


class QuantizedLinear(CompiledLinear):
    """A linear map with 8- or 4-bit weights; made by ``pack_int8`` and ``pack_int4``.

    Up to ``exact_rows`` rows, and always for float32, activations are quantised to nearly 16 bits,
    else to 8. Within each of the paths that ``path`` names, a result is a function of its row
    alone, bit by bit. ``invariant()`` has one path.
    """

    def __init__(
        self,
        library: Library,
        bits: int,
        parts: tuple[Tensor, Tensor, Tensor],
        shape: tuple[int, int],
        dtype: torch.dtype,
        *,
        exact_rows: int | None = None,
        tile_rows: int | None = None,
    ) -> None:
        if shape[1] > _MAX_IN_FEATURES:
            raise ValueError(f"{shape[1]} inputs; sums would overflow beyond 65,536")
        if exact_rows is None:
            exact_rows = _EXACT_ROWS_WITH_TILES if library.has_tiles else _EXACT_ROWS[bits]
        if tile_rows is None:
            tile_rows = _TILE_ROWS[bits] if library.has_tiles else _NEVER
        self.bits = bits
        self.exact_rows = exact_rows
        self.tile_rows = tile_rows
        self._dtype = dtype  # of the weight before
        super().__init__(library, shape, bits, parts, exact_rows=exact_rows, tile_rows=tile_rows)

    def invariant(self) -> QuantizedLinear:
        """Return this map, sharing the weights, with the same bits for a row in any batch.

        Activations have 16 bits at every row count, and 4-bit weights are never in AMX tiles:
        slower for many rows.
        """
        return QuantizedLinear(
            self._library,
            self.bits,
            self._parts,
            (self.out_features, self.in_features),
            self._dtype,
            exact_rows=_NEVER,
            tile_rows=self.tile_rows if self.bits == 8 else _NEVER,
        )

    def path(self, rows: int, dtype: torch.dtype = torch.bfloat16) -> str:
        """Name the arithmetic that so many rows go through."""
        exact = dtype == torch.float32 or rows <= self.exact_rows
        activations = f"{16 if exact else 8}-bit activations"
        if self.bits == 8:
            return f"int8, {activations}"  # whole sums: with tiles or without, the same bits
        if self._uses_tiles(rows, dtype):
            return f"int4 as int8, {activations}"
        return f"int4, {activations} in groups of {_GROUP}"

    def dense(self) -> Tensor:
        """Return the matrix [out, in] that is multiplied with, in the dtype it was given in."""
        packed, scales, _ = self._parts
        if self.bits == 8:
            numbers = packed.view(-1, packed.shape[1] // 64, _BLOCK, 4)
            scales = scales[:, None]
        else:
            halves = torch.stack((packed & 15, packed >> 4), dim=2)
            numbers = halves.view(halves.shape[0], -1, _BLOCK, 4)
            scales = scales.transpose(1, 2).reshape(-1, scales.shape[1])
            scales = scales.float().repeat_interleave(_GROUP, dim=1)
        num_blocks = numbers.shape[0]
        plain = numbers.transpose(1, 2).reshape(num_blocks * _BLOCK, -1).float()
        dense = (plain - (1 << self.bits - 1)) * scales
        return dense[: self.out_features, : self.in_features].to(self._dtype)

    def _uses_tiles(self, rows: int, dtype: torch.dtype) -> bool:
        # As tiles take them, 4-bit weights lose a little, which float32 is not asked to.
        if self.bits == 4 and dtype == torch.float32:
            return False
        return rows >= self.tile_rows

    def __repr__(self) -> str:
        return f"int{self.bits}({self.out_features} x {self.in_features})"


def _by_pieces(
    quantize: Callable[[Tensor], tuple[Tensor, Tensor]], weight: Tensor
) -> tuple[Tensor, Tensor]:
    rows = max(_PIECE // weight.shape[1], 1)
    pieces = [quantize(piece.float()) for piece in weight.split(rows)]
    numbers, scales = zip(*pieces, strict=True)
    return torch.cat(numbers), torch.cat(scales)


def _quantize_to_8_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(dim=1) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0)
    return (weight * inverse[:, None]).round_().to(torch.int16), scales


# What the number of largest magnitude in a group becomes; one of them is -8 exactly.
_ENDS = (-8.0, -7.5, -7.0, -8.5)


def _quantize_to_4_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows, in_features = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -in_features % _GROUP))
    groups = padded.view(-1, _GROUP)
    largest = groups.gather(1, groups.abs().argmax(dim=1, keepdim=True))
    best_numbers = best_scales = least = None
    for end in _ENDS:
        scales = (largest / end).bfloat16().float()
        numbers = _nearest_of_16(groups, scales)
        # Least squares for these numbers, then the numbers that are nearest for that scale.
        power = numbers.square().sum(dim=1, keepdim=True)
        product = (groups * numbers).sum(dim=1, keepdim=True)
        scales = torch.where(power > 0, product / power, 0).bfloat16().float()
        numbers = _nearest_of_16(groups, scales)
        error = (groups - numbers * scales).square_().sum(dim=1, keepdim=True)
        if least is None:
            best_numbers, best_scales, least = numbers, scales, error
            continue
        better = error < least
        best_numbers = torch.where(better, numbers, best_numbers)
        best_scales = torch.where(better, scales, best_scales)
        least = torch.where(better, error, least)
    assert best_numbers is not None
    assert best_scales is not None
    return (
        best_numbers.to(torch.int16).view(rows, -1),
        best_scales.bfloat16().view(rows, -1),
    )


def _nearest_of_16(groups: Tensor, scales: Tensor) -> Tensor:
    inverse = torch.where(scales != 0, 1 / scales, 0)
    return (groups * inverse).round_().clamp_(-8, 7)


def _pad(numbers: Tensor, zero_point: int) -> Tensor:
    """Fill up to whole panels of channels and chunks of inputs, as bytes."""
    rows, columns = numbers.shape
    edges = (0, -columns % _CHUNK, 0, -rows % _PANEL)
    return torch.nn.functional.pad(numbers.to(torch.uint8), edges, value=zero_point)


def _pad_rows(scales: Tensor) -> Tensor:
    missing = -scales.shape[0] % _PANEL
    return torch.cat((scales, scales.new_zeros(missing, *scales.shape[1:])))


def _padded_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    return _pad_rows(bias.float())


def _in_blocks(numbers: Tensor) -> Tensor:
    """Order bytes [out, in] as [blocks, in / 4 * 16 channels * 4 inputs]."""
    rows, columns = numbers.shape
    blocks = numbers.view(rows // _BLOCK, _BLOCK, columns // 4, 4).transpose(1, 2)
    return blocks.reshape(rows // _BLOCK, -1)
