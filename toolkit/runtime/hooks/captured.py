"""Hold activations that were captured: tensors that know their positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from toolkit.runtime.hooks.names import canonical

__all__ = ["Captured", "CapturedRequest", "Rows", "Span"]


class Span(NamedTuple):
    """Which of some rows are a request's, and at which of its positions."""

    request_id: str
    start: int
    positions: Sequence[int]
    num_in_prompt: int  # of these positions, the first

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + len(self.positions)


class Rows:
    """The rows that a capture takes at some points in one step, of all its requests at once.

    Args:
        index: [num_rows] int64, which rows of what a point shows; None for all.
        spans: Whose they are, in order.
        dtype: What they are kept in; the model's where None.
    """

    def __init__(self, index: Tensor | None, spans: list[Span], dtype: torch.dtype | None) -> None:
        self.spans = spans
        self.values: dict[str, Tensor] = {}
        self._index = index
        self._dtype = dtype

    def of(self, x: Tensor) -> Tensor:
        """Copy the rows of x, on its own device."""
        return x.clone() if self._index is None else x.index_select(0, self._index)

    def take(self, point: str, x: Tensor) -> None:
        """Keep the rows of x."""
        self.keep(point, self.of(x))

    def keep(self, point: str, rows: Tensor) -> None:
        """Keep rows, one for each of ours."""
        self.values[point] = rows if self._dtype is None else rows.to(self._dtype)

    def move(self, device: torch.device) -> None:
        """Bring what was kept to a device; one wait for all of it."""
        is_away = any(rows.is_cuda for rows in self.values.values())
        for point, rows in self.values.items():
            self.values[point] = rows.to(device, non_blocking=True)
        if is_away and device.type == "cpu":
            torch.cuda.current_stream().synchronize()

    def part(self, point: str, span: Span) -> Tensor:
        """View a request's rows at a point; attention probabilities as wide as its context."""
        rows = self.values[point][span.start : span.stop]
        is_wide = point.endswith(".attn_probs")
        return rows[..., : span.positions[-1] + 1] if is_wide else rows

    @property
    def num_bytes(self) -> int:
        """Memory of what was taken."""
        return sum(rows.numel() * rows.element_size() for rows in self.values.values())


class Captured(Tensor):
    """A request's activations at one point: a tensor [num_positions, ...] with ``positions``.

    What is computed from it is a plain tensor. It owns its memory and wants no gradient.
    """

    # Results of operations are plain tensors: positions would not be theirs.
    __torch_function__ = torch._C._disabled_torch_function_impl

    point: str
    positions: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor, point: str, positions: tuple[int, ...]) -> Captured:
        """Name a tensor's point and the position of each row."""
        captured = tensor.as_subclass(cls)
        captured.point, captured.positions = point, positions
        return captured

    @property
    def tensor(self) -> Tensor:
        """The same numbers as a plain tensor."""
        return self.as_subclass(Tensor)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Give NumPy the numbers; bfloat16, which it lacks, becomes float32."""
        plain = self.tensor.cpu()
        numbers = (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()
        return np.array(numbers, dtype=dtype) if copy or dtype is not None else numbers

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return (
            f"Captured({self.point!r}, shape {tuple(self.shape)}, {self.dtype}, "
            f"positions {_spoken(self.positions)})"
        )


class CapturedRequest(Mapping[str, Captured]):
    """What was captured of one request, by point."""

    def __init__(
        self, request_id: str, parts: Sequence[tuple[Rows, Span]], num_layers: int
    ) -> None:
        self.request_id = request_id
        self._num_layers = num_layers
        self._parts = parts
        self._points = tuple(dict.fromkeys(point for rows, _ in parts for point in rows.values))

    def __getitem__(self, point: str) -> Captured:
        """Return the activations at a point, under our name or TransformerLens'.

        A layer may count from the end: "layers.-1.resid_post".
        """
        name = canonical(point, self._num_layers) if isinstance(point, str) else point
        if name not in self._points:
            raise KeyError(f"{point} was not captured; {self.request_id} has {self._points}")
        parts = [(rows, span) for rows, span in self._parts if name in rows.values]
        pieces = [rows.part(name, span) for rows, span in parts]
        positions = tuple(position for _, span in parts for position in span.positions)
        return Captured.of(_joined(pieces), name, positions)

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def __repr__(self) -> str:
        return f"CapturedRequest({self.request_id!r}, {', '.join(self._points) or 'nothing'})"


def _joined(pieces: list[Tensor]) -> Tensor:
    """Put pieces under one another in memory of their own; narrower ones get zeros at the end."""
    width = max(piece.shape[-1] for piece in pieces)
    with torch.inference_mode(False):  # a tensor of inference mode cannot train a probe
        return torch.cat(
            [
                piece if piece.shape[-1] == width else pad(piece, (0, width - piece.shape[-1]))
                for piece in pieces
            ]
        )


def _spoken(positions: Sequence[int]) -> str:
    if len(positions) > 1 and positions[-1] - positions[0] == len(positions) - 1:
        return f"{positions[0]} to {positions[-1]}"
    shown = ", ".join(map(str, positions[:8]))
    return f"{shown}, ..." if len(positions) > 8 else shown
