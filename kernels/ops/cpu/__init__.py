"""The ops on the CPU: C++ that is compiled on the machine that runs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.kernels.cpu.attention import paged_attention
from toolkit.kernels.cpu.layers import CompiledLayers
from toolkit.kernels.cpu.library import DTYPES, Library
from toolkit.kernels.cpu.linears import CompiledLinear, OneDnnLinear, PanelLinear
from toolkit.kernels.cpu.quantized import pack_int4, pack_int8
from toolkit.kernels.cpu.rows import RowOps
from toolkit.kernels.cpu.sampling import SamplingOps
from toolkit.kernels.memory import PageArena

__all__ = ["bind", "pack_linear"]

_ROW_OPS = (
    "rms_norm",
    "add_rms_norm",
    "layer_norm",
    "add_layer_norm",
    "rotary",
    "write_kv",
    "rotary_write_kv",
    "silu_mul",
    "gelu_mul",
)


def bind(path: Path, *, batch_invariant: bool) -> dict[str, Callable[..., Any]]:
    """Return the ops of a compiled library by name; they use as many threads as torch does now."""
    library = Library(path)
    library.set_num_threads(torch.get_num_threads())
    row_ops, sampling_ops = RowOps(library), SamplingOps(library)
    return {
        "pack_linear": partial(
            pack_linear, library=library, batch_invariant=batch_invariant, arena=PageArena()
        ),
        "fuse_layers": partial(CompiledLayers.fuse, library, batch_invariant=batch_invariant),
        "paged_attention": partial(paged_attention, library, batch_invariant=batch_invariant),
        **{name: getattr(row_ops, name) for name in _ROW_OPS},
        "race": sampling_ops.race,
        "argmax": sampling_ops.argmax,
        "cut_unlikely": sampling_ops.cut_unlikely,
    }


def pack_linear(
    weight: Tensor,
    bias: Tensor | None,
    *,
    quantization: str | None = None,
    gate: str | None = None,
    library: Library | None = None,
    batch_invariant: bool = False,
    arena: PageArena | None = None,
) -> OneDnnLinear | CompiledLinear | None:
    """Lay a matrix [out, in] out for many calls; None where the plain layout is all there is.

    It lies in ``arena`` if that is given.

    ``gate`` names an activation: a map that can computes act(first half) * second half of the
    result too, and says so by ``is_gated``. With ``batch_invariant`` a row gets the same bits in
    every batch. Without the compiled ``library`` the layout is oneDNN's, and ``quantization``
    "int8" or "int4" raises ValueError.
    """
    if library is None:
        if quantization is not None:
            raise ValueError(f"quantization={quantization!r} needs the compiled C++ ops")
        return OneDnnLinear.pack(weight, bias)
    if quantization is None:
        packed = PanelLinear(library, weight, bias, gate) if weight.dtype in DTYPES else None
    else:
        quantized = (pack_int4 if quantization == "int4" else pack_int8)(library, weight, bias)
        packed = quantized.invariant() if batch_invariant else quantized
    if packed is not None and arena is not None:
        packed.move_to(arena)
    return packed
