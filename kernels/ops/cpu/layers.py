"""A model's plain layers in one call of the compiled library: src/layers.cpp.

From Python a small op takes longer to reach than to run, once a layer's weights have gone through
the caches: some 50 us of cold interpreter, eight times a layer.
Request path 7/8: from models.decoder, into the blocks of cache.storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

import torch
from torch import Tensor

from toolkit.kernels.contracts import LayerParts, StackParts
from toolkit.kernels.cpu.attention import NO_WINDOW
from toolkit.kernels.cpu.library import DTYPES, Library, pointer
from toolkit.kernels.cpu.linears import GATES, CompiledLinear

__all__ = ["CompiledLayers"]

# The structs in src/layers.cpp.
_LAYER = Struct("19q d")
_STACK = Struct("17q 3d")
_STEP = Struct("13q")
# layers.cpp's enum Part.
_PARTS = ("norms", "qkv", "rotary_write_kv", "attention", "out", "gate_up", "down")


# layers.cpp's enum Failure, from its second on.
_OUT_OF_RANGE = (
    "rows name tokens that there are not",
    "positions are negative or beyond the model's longest sequence",
    "slots lie outside the cache",
    "block_tables name blocks that there are not, or too few of them",
)
_NO_MEMORY = 1

_Cache = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class _Description:
    """What is the same in every step, for one cache: the structs, and what they point to."""

    addresses: tuple[int, ...]  # of the cache's tensors
    stack: bytes
    kept: tuple[Tensor, ...]


class CompiledLayers:
    """The layers of a model in one call; made by ``fuse``, where they are of the plain kind."""

    def __init__(self, library: Library, parts: StackParts, *, batch_invariant: bool) -> None:
        self._library = library
        self._parts = parts
        self._invariant = batch_invariant
        self._described: _Description | None = None
        self._seconds = torch.zeros(len(_PARTS), dtype=torch.float64)
        # Detached: they keep the memory that the structs point to, whatever a parameter is set to.
        self._pointees = [_pointees(layer) for layer in parts.layers]

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
        norms = {layer.attn_norm[0].dtype for layer in parts.layers}
        norms |= {layer.mlp_norm[0].dtype for layer in parts.layers} | {parts.final_norm[0].dtype}
        head_norms = {x.dtype for layer in parts.layers for x in layer.head_norms or ()}
        if len(norms) > 1 or len(head_norms) > 1 or not norms <= {parts.dtype, torch.float32}:
            return None
        return cls(library, parts, batch_invariant=batch_invariant)

    @property
    def seconds(self) -> dict[str, float]:
        """Time that each part of the layers has taken, over all calls so far."""
        return dict(zip(_PARTS, self._seconds.tolist(), strict=True))

    def __call__(
        self,
        embedded: Tensor,
        positions: Tensor,
        slots: Tensor,
        block_tables: Tensor,
        query_starts: Tensor,
        context_lens: Tensor,
        kv: _Cache,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return the final norm of the residual sum: contracts.FusedLayers."""
        described = self._described
        addresses = tuple(x.data_ptr() for pair in kv for x in pair)
        if described is None or described.addresses != addresses:
            self._described = described = self._describe(kv, addresses)
        self._check(embedded, positions, slots, block_tables, query_starts, context_lens, rows)
        embedded = embedded.contiguous()
        num_rows = len(embedded) if rows is None else len(rows)
        out = embedded.new_empty(num_rows, embedded.shape[1])
        if len(embedded) == 0:
            return out
        tensors = (embedded, out, rows, positions, slots, block_tables, query_starts, context_lens)
        sizes = len(embedded), num_rows, len(context_lens), block_tables.stride(0)
        step = _STEP.pack(*map(pointer, tensors), *sizes, self._seconds.data_ptr())
        failure = self._library.run_layers(described.stack, step)
        if failure == _NO_MEMORY:
            raise MemoryError(f"no memory for the activations of {len(embedded)} tokens")
        if failure:
            raise IndexError(_OUT_OF_RANGE[failure - 2])
        return out

    def _check(self, embedded: Tensor, *indices: Tensor | None) -> None:
        """Raise TypeError unless the C++ can read these: it takes pointers."""
        if embedded.dtype is not self._parts.dtype:
            raise TypeError(f"embeddings are {embedded.dtype}, the layers {self._parts.dtype}")
        for x, dtype in zip(indices, _INDEX_DTYPES, strict=True):
            if x is not None and (x.dtype is not dtype or x.stride(-1) != 1):
                raise TypeError(f"an index is {x.dtype} with strides {x.stride()}, not {dtype}")

    def _describe(self, kv: _Cache, addresses: tuple[int, ...]) -> _Description:
        parts = self._parts
        keys = kv[0][0]
        for x in (x for pair in kv for x in pair):
            if x.dtype is not parts.dtype or not x.is_contiguous() or x.shape != keys.shape:
                raise TypeError(f"a cache is {x.dtype} {list(x.shape)}, not as the layers need it")
        packed = b"".join(map(_pack_layer, parts.layers, self._pointees, kv))
        layers = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        slopes = _floats(parts.alibi_slopes)
        final_norm = tuple(_detached(x) for x in parts.final_norm)
        first = parts.layers[0]
        head_norm_dtype = parts.dtype if first.head_norms is None else first.head_norms[0].dtype
        stack = _STACK.pack(
            layers.data_ptr(),
            *map(pointer, (*final_norm, slopes)),
            *(len(parts.layers), parts.hidden_size),
            *(parts.num_heads, parts.num_kv_heads, parts.head_dim, keys.shape[0], keys.shape[2]),
            GATES[parts.activation],
            *(parts.norm == "layer", self._invariant),
            *map(DTYPES.__getitem__, (parts.dtype, parts.final_norm[0].dtype, head_norm_dtype)),
            *(parts.norm_eps, parts.head_norm_eps, parts.softcap or 0.0),
        )
        kept = (layers, *(x for x in (*final_norm, slopes) if x is not None))
        return _Description(addresses, stack, kept)


# positions, slots; block_tables, query_starts, context_lens; rows.
_INDEX_DTYPES = (torch.int64,) * 2 + (torch.int32,) * 3 + (torch.int64,)


def _pointees(layer: LayerParts) -> tuple[Tensor | None, ...]:
    """Return a layer's tensors beside matrices and caches, in the struct's order."""
    head_norms = layer.head_norms or (None, None)
    rotation = layer.rotation or (None, None)
    norms = (*layer.attn_norm, *layer.mlp_norm, *head_norms)
    return (*map(_detached, norms), _floats(layer.sinks), *map(_detached, rotation))


def _pack_layer(
    layer: LayerParts, pointees: tuple[Tensor | None, ...], kv: tuple[Tensor, Tensor]
) -> bytes:
    maps = (layer.qkv, layer.out, layer.gate_up, layer.down)
    cos = pointees[-1]
    return _LAYER.pack(
        *(linear.address for linear in maps),
        *map(pointer, (*pointees, *kv)),
        *(0, 0) if cos is None else cos.shape,
        *(layer.interleaved, NO_WINDOW if layer.window is None else layer.window, layer.scale),
    )


def _detached(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().contiguous()


def _floats(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().to(torch.float32).contiguous()
