"""A model's plain layers in one call of the compiled library: src/layers.cpp.

From Python a small op takes longer to reach than to run, once a layer's weights have gone through
the caches: some 50 us of cold interpreter, eight times a layer.
Request path 7/8: from models.decoder, into the blocks of cache.storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import torch
from torch import Tensor

from toolkit.kernels.contracts import LayerParts, StackParts
from toolkit.kernels.cpu.attention import NO_WINDOW
from toolkit.kernels.cpu.library import DTYPES, Library, pointer
from toolkit.kernels.cpu.linears import GATES, CompiledLinear

__all__ = ["CompiledLayers"]

# The structs in src/layers.cpp.
_LAYER = Struct("18q d")
_STACK = Struct("16q 3d")
_STEP = Struct("13q")
# layers.cpp's enum Part.
_PARTS = ("norms", "qkv", "rotary_write_kv", "attention", "out", "gate_up", "down")


class CompiledLayers:
    """The layers of a model in one call; made by ``fuse``, where they are of the plain kind."""

    def __init__(self, library: Library, parts: StackParts, *, batch_invariant: bool) -> None:
        self._library = library
        self._parts = parts
        self._invariant = batch_invariant
        self._kv: Sequence[tuple[Tensor, Tensor]] | None = None
        self._layers = torch.empty(0, dtype=torch.uint8)
        self._stack = b""
        self._seconds = torch.zeros(len(_PARTS), dtype=torch.float64)
        # What the C++ reads in float32.
        self._sinks = [_floats(layer.sinks) for layer in parts.layers]
        self._slopes = _floats(parts.alibi_slopes)

    @classmethod
    def fuse(
        cls, library: Library, parts: StackParts, *, batch_invariant: bool
    ) -> CompiledLayers | None:
        """Return the layers in one call; None where a part is not one that the C++ computes."""
        maps = [
            linear
            for layer in parts.layers
            for linear in (layer.qkv, layer.out, layer.gate_up, layer.down)
        ]
        if not all(isinstance(linear, CompiledLinear) for linear in maps):
            return None
        if parts.dtype not in DTYPES or parts.activation not in GATES:
            return None
        return cls(library, parts, batch_invariant=batch_invariant)

    @property
    def seconds(self) -> dict[str, float]:
        """Time that each part of the layers has taken, over all calls so far."""
        return dict(zip(_PARTS, self._seconds.tolist(), strict=True))

    def __call__(
        self,
        residual: Tensor,
        positions: Tensor,
        slots: Tensor,
        block_tables: Tensor,
        query_starts: Tensor,
        context_lens: Tensor,
        kv: Sequence[tuple[Tensor, Tensor]],
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return the final norm of the residual sum: contracts.FusedLayers."""
        if kv is not self._kv:
            self._describe(kv)
        num_rows = len(residual) if rows is None else len(rows)
        out = residual.new_empty(num_rows, residual.shape[1])
        if len(residual) == 0:
            return out
        tensors = (residual, out, rows, positions, slots, block_tables, query_starts, context_lens)
        sizes = len(residual), num_rows, len(context_lens), block_tables.stride(0)
        step = _STEP.pack(*map(pointer, tensors), *sizes, self._seconds.data_ptr())
        self._library.run_layers(self._stack, step)
        return out

    def _describe(self, kv: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Pack what is the same in every step."""
        parts = self._parts
        first = parts.layers[0]
        layers = b"".join(map(self._pack_layer, parts.layers, self._sinks, kv))
        self._layers = torch.frombuffer(bytearray(layers), dtype=torch.uint8)
        head_norm_dtype = parts.dtype if first.head_norms is None else first.head_norms[0].dtype
        self._stack = _STACK.pack(
            self._layers.data_ptr(),
            *map(pointer, parts.final_norm),
            pointer(self._slopes),
            *(len(parts.layers), parts.hidden_size),
            *(parts.num_heads, parts.num_kv_heads, parts.head_dim, kv[0][0].shape[2]),
            GATES[parts.activation],
            *(parts.norm == "layer", self._invariant),
            *map(DTYPES.__getitem__, (parts.dtype, parts.final_norm[0].dtype, head_norm_dtype)),
            *(parts.norm_eps, parts.head_norm_eps, parts.softcap or 0.0),
        )
        self._kv = kv

    @staticmethod
    def _pack_layer(layer: LayerParts, sinks: Tensor | None, kv: tuple[Tensor, Tensor]) -> bytes:
        maps = (layer.qkv, layer.out, layer.gate_up, layer.down)
        norms = (*layer.attn_norm, *layer.mlp_norm, *(layer.head_norms or (None, None)))
        rotation = layer.rotation or (None, None)
        return _LAYER.pack(
            *(linear.address for linear in maps),
            *map(pointer, (*norms, sinks, *rotation, *kv)),
            *(0 if rotation[0] is None else rotation[0].shape[1], layer.interleaved),
            *(NO_WINDOW if layer.window is None else layer.window, layer.scale),
        )


def _floats(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.float32).contiguous()
