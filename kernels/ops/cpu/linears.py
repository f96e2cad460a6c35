"""Linear maps on the CPU with the weight laid out once: our own in AMX tiles, or oneDNN's.

torch's own linear hands oneDNN the plain matrix, which it brings into its layout at every call
(bfloat16), or takes MKL (float32), which is slow for few rows on some processors.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from toolkit.kernels.cpu.library import Library, pointer

__all__ = ["InvariantLinear", "PackedLinear", "TileLinear", "pack"]

# The row count that the layout is chosen for; measured, the choice hardly matters.
_LAYOUT_ROWS = 16


def pack(
    weight: Tensor,
    bias: Tensor | None,
    *,
    library: Library | None = None,
    batch_invariant: bool = False,
    gate: str | None = None,
) -> PackedLinear | TileLinear | None:
    """Lay a matrix [out, in] out for many calls; None where the plain layout is all there is.

    ``gate`` names an activation: a map that can computes act(first half) * second half of the
    result too, and says so by ``is_gated``.

    With ``batch_invariant`` a row gets the same bits in every batch; raises NotImplementedError
    where this processor has no such map for the dtype.
    """
    is_tiled = library is not None and library.has_tiles and weight.dtype is torch.bfloat16
    if is_tiled and weight.shape[1] % TileLinear.depth == 0:
        return TileLinear(library, weight, bias, gate)
    packed = _reorder(weight)
    if batch_invariant:
        if packed is None:
            raise NotImplementedError(
                f"batch_invariant=True: this processor has no linear maps in {weight.dtype}"
            )
        return InvariantLinear(packed, bias)
    return None if packed is None else PackedLinear(packed, bias)


def _reorder(weight: Tensor) -> Tensor | None:
    try:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _LAYOUT_ROWS)
    except RuntimeError:  # no instructions for this dtype
        return None
    return packed


class PackedLinear:
    """A linear map whose weight is in oneDNN's own layout."""

    layout = "oneDNN"
    is_gated = False

    def __init__(self, packed: Tensor, bias: Tensor | None) -> None:
        self.bias = bias
        self.out_features, self.in_features = packed.shape
        self.nbytes = packed.numel() * packed.element_size()
        self._packed = packed
        # Bound once: looking an op up by its name takes as long as a small one runs.
        self._linear = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [rows, in] to [rows, out]."""
        return self._whole(x)

    def _whole(self, x: Tensor) -> Tensor:
        """Compute all rows in one call."""
        if x.shape[0] == 0:
            return x.new_empty(0, self.out_features)
        return self._linear(x, self._packed, self.bias, "none", [], "")

    def dense(self) -> Tensor:
        """Return the matrix [out, in] in its plain layout, a copy."""
        return self._packed.to_dense()

    def __repr__(self) -> str:
        return f"{self.layout}({self.out_features} x {self.in_features})"


# Row counts that are tried, largest first.
_CANDIDATES = (512, 256, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
# A vocabulary's logits for 512 rows could take hundreds of MiB, and heads see few rows.
_MAX_CHECKED_OUTPUTS = 1 << 24
# Reading the weight once costs about as much as computing so many rows with it.
_ROWS_PER_READ = 24
# What the row counts are chosen for: one request, some, a full step.
_TYPICAL_ROWS = (1, 8, 64, 512)


class InvariantLinear(PackedLinear):
    """A linear map that gives each row the same bits whatever the number of rows.

    oneDNN sums in another order for some row counts. Before the first map of a shape is made,
    candidate counts are run on the same random rows; only those whose results agree bit by bit are
    ever used. A batch is cut into pieces of such sizes, the last filled up with rows of zeros.
    """

    layout = "oneDNN, batch-invariant"

    def __init__(self, packed: Tensor, bias: Tensor | None) -> None:
        super().__init__(packed, bias)
        key = (*packed.shape, packed.dtype, bias is not None, torch.get_num_threads())
        if key not in _row_counts:
            _row_counts[key] = _cheapest(self._agreeing_counts())
        self.row_counts = _row_counts[key]

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [rows, in] to [rows, out]."""
        rows = x.shape[0]
        pieces = _pieces(rows, self.row_counts)
        if pieces == (rows,):
            return self._whole(x)
        out = x.new_empty(rows, self.out_features)
        start = 0
        for count in pieces:
            piece = x[start : start + count]
            end = start + len(piece)
            if len(piece) < count:
                piece = torch.cat((piece, piece.new_zeros(count - len(piece), self.in_features)))
            out[start:end] = self._whole(piece)[: end - start]
            start = end
        return out

    def _agreeing_counts(self) -> list[tuple[int, ...]]:
        """Group the candidates by the bits that they give."""
        largest = max(_MAX_CHECKED_OUTPUTS // self.out_features, 64)
        counts = [count for count in _CANDIDATES if count <= largest]
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(counts[0], self.in_features, generator=generator).to(self._packed.dtype)
        groups: list[tuple[Tensor, Tensor, list[int]]] = []
        for count in counts:
            # From both ends: a kernel may treat the last rows of a batch differently.
            first, last = (
                super(InvariantLinear, self).__call__(y) for y in (x[:count], x[-count:])
            )
            for group_first, group_last, members in groups:
                if first.equal(group_first[:count]) and last.equal(group_last[-count:]):
                    members.append(count)
                    break
            else:
                groups.append((first, last, [count]))
        return [tuple(members) for _, _, members in groups]


_row_counts: dict[tuple[object, ...], tuple[int, ...]] = {}


def _cheapest(groups: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the group of row counts that serves typical batches with the least work."""

    def work(counts: tuple[int, ...]) -> float:
        return sum(
            sum(count + _ROWS_PER_READ for count in _pieces(rows, counts)) / (rows + _ROWS_PER_READ)
            for rows in _TYPICAL_ROWS
        )

    return min(groups, key=work)


@cache
def _pieces(rows: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Cut a number of rows into counts with the least work; the last piece may be too large."""
    if rows == 0:
        return ()
    # best[n] is (work, first piece) for n rows.
    best: list[tuple[int, int]] = [(0, 0)]
    for n in range(1, rows + 1):
        best.append(
            min((best[max(n - count, 0)][0] + count + _ROWS_PER_READ, count) for count in counts)
        )
    pieces = []
    while rows > 0:
        pieces.append(best[rows][1])
        rows -= best[rows][1]
    return tuple(sorted(pieces, reverse=True))


class TileLinear:
    """A bfloat16 map in AMX's tiles (src/linear_tiles.cpp), the same bits in every batch.

    Measured against oneDNN's, whose order of summation depends on the number of rows and on where
    one stands: faster or as fast for all row counts (kernels/bench/linear_cpu.py).
    """

    layout = "AMX tiles"
    depth = 32  # inputs of a tile

    def __init__(
        self, library: Library, weight: Tensor, bias: Tensor | None, gate: str | None = None
    ) -> None:
        self.out_features, self.in_features = weight.shape
        self.is_gated = gate in _GATES and self.out_features % 32 == 0
        self._gate = _GATES[gate] if self.is_gated and gate is not None else 0
        self._num_results = self.out_features // 2 if self.is_gated else self.out_features
        self._library = library
        self._bias = None if bias is None else bias.float()
        padded = torch.nn.functional.pad(weight, (0, 0, 0, -self.out_features % 32))
        panels = padded.view(-1, 16, self.in_features // 2, 2)
        if self.is_gated:
            panels = _take_turns(panels)
            self._bias = None if bias is None else _take_turns(bias.float().view(-1, 16)).flatten()
        self._packed = panels.transpose(1, 2).contiguous()
        self.nbytes = self._packed.numel() * self._packed.element_size()

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [rows, in] to [rows, out], or [rows, out / 2] with a gate."""
        if x.stride(1) != 1:
            x = x.contiguous()
        out = x.new_empty(x.shape[0], self._num_results)
        pointers = x.data_ptr(), x.stride(0), pointer(self._packed), pointer(self._bias)
        sizes = x.shape[0], self.in_features, self.out_features
        self._library.linear_tiles(*pointers, out.data_ptr(), *sizes, self._gate)
        return out

    def dense(self) -> Tensor:
        """Return the matrix [out, in] in its plain layout, a copy."""
        panels = self._packed.transpose(1, 2)
        if self.is_gated:
            panels = panels.unflatten(0, (-1, 2)).transpose(0, 1)
        return panels.reshape(-1, self.in_features)[: self.out_features].clone()

    def __repr__(self) -> str:
        return f"{self.layout}({self.out_features} x {self.in_features})"


# linear_tiles.cpp's enum Gate.
_GATES = {"silu": 1, "gelu": 2, "gelu_tanh": 3}


def _take_turns(panels: Tensor) -> Tensor:
    """Bring the panels of two halves into the order first, second, first, second ..."""
    return panels.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)
