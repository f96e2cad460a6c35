"""Unpack weights in MXFP4, in which OpenAI's gpt-oss stores its experts.

Thirty-two values share a scale, a power of two; each is a four-bit float of one sign, two exponent
and one mantissa bit. OCP Microscaling Formats (MX) Specification 1.0, 2023, section 5.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

__all__ = ["unpack_mxfp4"]

_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_BY_CODE = (*_POSITIVE, *(-value for value in _POSITIVE))
_SCALE_BIAS = 127
_BLOCKS, _SCALES = "_blocks", "_scales"


def unpack_mxfp4(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor), each pair NAME_blocks and NAME_scales as one tensor NAME in bfloat16.

    Blocks [..., out, groups, 16] uint8 hold two values a byte, the lower four bits first; scales
    [..., out, groups] uint8 are exponents plus 127. What is yielded is [..., in, out], as
    transformers names and stores these weights when they are not packed. bfloat16 holds every
    value exactly. Tensors that are not packed pass through; a half without its other is yielded at
    the end under its own name.
    """
    halves: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if not name.endswith((_BLOCKS, _SCALES)):
            yield name, tensor
            continue
        halves[name] = tensor
        stem = name.removesuffix(_BLOCKS).removesuffix(_SCALES)
        if stem + _BLOCKS in halves and stem + _SCALES in halves:
            yield stem, _unpacked(halves.pop(stem + _BLOCKS), halves.pop(stem + _SCALES))
    yield from halves.items()


def _unpacked(blocks: Tensor, scales: Tensor) -> Tensor:
    values = torch.tensor(_BY_CODE, dtype=torch.bfloat16)
    codes = torch.stack((blocks & 0xF, blocks >> 4), dim=-1).flatten(-2)  # [..., groups, 32]
    exponents = (scales.to(torch.int32) - _SCALE_BIAS).unsqueeze(-1)
    return torch.ldexp(values[codes.long()], exponents).flatten(-2).mT
