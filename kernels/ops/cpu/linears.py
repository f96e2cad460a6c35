"""Linear maps on the CPU with the weight laid out once: our own in C++, or oneDNN's without it.

torch's own linear hands oneDNN the plain matrix, which it brings into its layout at every call
(bfloat16), or takes MKL (float32), which is slow for few rows on some processors.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.kernels.cpu.library import DTYPES, Library, pointer
from toolkit.kernels.memory import PageArena

__all__ = ["GATES", "CompiledLinear", "OneDnnLinear", "PanelLinear"]

# linear.h's enum Gate.
GATES = {"silu": 1, "gelu": 2, "gelu_tanh": 3}


class CompiledLinear:
    """A linear map that the compiled library computes: linear.h's LinearMap, and the call of it."""

    def __init__(
        self,
        library: Library,
        shape: tuple[int, int],
        kind: int,
        parts: tuple[Tensor, Tensor | None, Tensor | None],
        *,
        dtypes: tuple[torch.dtype, ...] = tuple(DTYPES),
        gate: int = 0,
        exact_rows: int = 0,
        tile_rows: int = 0,
    ) -> None:
        self.out_features, self.in_features = shape
        self.dtypes = dtypes  # of the rows that it maps
        self.is_gated = gate != 0
        self._num_results = self.out_features // 2 if self.is_gated else self.out_features
        self._library = library
        self._fields = (kind, self.in_features, self.out_features, gate, exact_rows, tile_rows)
        self._point_to(parts)

    def _point_to(self, parts: tuple[Tensor, Tensor | None, Tensor | None]) -> None:
        self._parts = parts  # weight, scales and bias, some None
        self._map = torch.tensor([*map(pointer, parts), *self._fields])
        self.address = self._map.data_ptr()  # of the LinearMap
        self.nbytes = sum(x.numel() * x.element_size() for x in parts if x is not None)

    def move_to(self, arena: PageArena) -> None:
        """Let the weight and its scales lie in an arena."""
        weight, scales, bias = self._parts
        self._point_to((arena.place(weight), None if scales is None else arena.place(scales), bias))

    def clone(self) -> CompiledLinear:
        """Return an equal map with a copy of the weight."""
        twin = copy.copy(self)
        weight, scales, bias = self._parts
        twin._point_to((weight.clone(), None if scales is None else scales.clone(), bias))
        return twin

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [rows, in] to [rows, out], or to [rows, out / 2] with a gate.

        Raises TypeError for a dtype that the weight does not go with, ValueError for another shape,
        MemoryError if there is no room to work in.
        """
        if x.dtype not in self.dtypes:
            raise TypeError(f"{self!r} takes {self.dtypes}, not {x.dtype}")
        if x.dim() != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"{self!r} takes [rows, {self.in_features}], not {list(x.shape)}")
        if x.stride(1) != 1:
            x = x.contiguous()
        rows = x.shape[0]
        out = x.new_empty(rows, self._num_results)
        failed = self._library.linear(
            self.address, x.data_ptr(), x.stride(0), out.data_ptr(), rows, DTYPES[x.dtype]
        )
        if failed:
            raise MemoryError(f"no memory for {rows} rows through {self!r}")
        return out


# linear.h's enum MapKind.
_FLOATS, _BFLOAT_PAIRS, _TILES = range(3)
_TILE_DEPTH = 32  # inputs of a tile


class PanelLinear(CompiledLinear):
    """A map of float32, bfloat16 or float16, in AMX tiles or vector registers.

    A row gets the same bits in every batch. ``gate`` names an activation: the map then computes
    act(first half) * second half of the result too, where it can, and says so by ``is_gated``.
    """

    def __init__(
        self, library: Library, weight: Tensor, bias: Tensor | None, gate: str | None = None
    ) -> None:
        out_features, in_features = weight.shape
        width = library.width
        is_gated = gate in GATES and out_features % (2 * width) == 0
        kind = _kind(library, weight)
        pair = 1 if kind == _FLOATS else 2
        padded = functional.pad(weight, (0, 0, 0, -out_features % (2 * width)))
        vectors = padded.view(-1, width, in_features // pair, pair)
        biases = None if bias is None else bias.float()
        if is_gated:
            vectors = _take_turns(vectors)
            biases = None if biases is None else _take_turns(biases.view(-1, width)).flatten()
        pairs = vectors.unflatten(0, (-1, 2)).permute(0, 3, 1, 2, 4).contiguous()
        self.layout = ("floats", "pairs of bfloat16", "AMX tiles")[kind]
        super().__init__(
            library,
            (out_features, in_features),
            kind,
            (pairs, None, biases),
            dtypes=(weight.dtype,),
            gate=GATES[gate] if is_gated and gate is not None else 0,
        )

    def dense(self) -> Tensor:
        """Return the matrix [out, in] in its plain layout, a copy."""
        vectors = self._parts[0].permute(0, 2, 3, 1, 4).flatten(0, 1)
        if self.is_gated:
            vectors = vectors.unflatten(0, (-1, 2)).transpose(0, 1)
        return vectors.reshape(-1, self.in_features)[: self.out_features].clone()

    def __repr__(self) -> str:
        return f"{self.layout}({self.out_features} x {self.in_features})"


def _kind(library: Library, weight: Tensor) -> int:
    if weight.dtype is not torch.bfloat16:
        return _FLOATS
    if library.has_tiles and weight.shape[1] % _TILE_DEPTH == 0:
        return _TILES
    return _BFLOAT_PAIRS if library.has_pairs and weight.shape[1] % 2 == 0 else _FLOATS


def _take_turns(vectors: Tensor) -> Tensor:
    """Bring the vectors of two halves into the order first, second, first, second ..."""
    return vectors.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)


# The row count that the layout is chosen for; measured, the choice hardly matters.
_LAYOUT_ROWS = 16


class OneDnnLinear:
    """A linear map whose weight is in oneDNN's own layout."""

    is_gated = False

    def __init__(self, packed: Tensor, bias: Tensor | None) -> None:
        self.bias = bias
        self.out_features, self.in_features = packed.shape
        self.nbytes = packed.numel() * packed.element_size()
        self._packed = packed
        # Bound once: looking an op up by its name takes as long as a small one runs.
        self._linear = torch.ops.mkldnn._linear_pointwise.default

    @classmethod
    def pack(cls, weight: Tensor, bias: Tensor | None) -> OneDnnLinear | None:
        """Lay a matrix [out, in] out; None where oneDNN has no instructions for its dtype."""
        try:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _LAYOUT_ROWS)
        except RuntimeError:
            return None
        return cls(packed, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [rows, in] to [rows, out]."""
        if x.shape[0] == 0:
            return x.new_empty(0, self.out_features)
        return self._linear(x, self._packed, self.bias, "none", [], "")

    def dense(self) -> Tensor:
        """Return the matrix [out, in] in its plain layout, a copy."""
        return self._packed.to_dense()

    def __repr__(self) -> str:
        return f"oneDNN({self.out_features} x {self.in_features})"
