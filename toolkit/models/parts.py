"""The small parts of a layer: linear maps, norms, and how a branch joins the residual sum.

Request path 6/8: from models.layers, to kernels.ops.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.kernels import Ops
from toolkit.models.spec import NormSpec

__all__ = ["GroupedLinear", "Join", "Linear", "Norm", "PlainJoin", "PreNormJoin", "SumNormJoin"]


class Linear(nn.Linear):
    """A linear map through the chosen kernels."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, ops: Ops) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.ops = ops

    def forward(self, x: Tensor) -> Tensor:
        """Map x [num_tokens, in] to [num_tokens, out]."""
        return self.ops.linear(x, self.weight, self.bias)


class GroupedLinear(nn.Module):
    """A linear map for each of several groups of rows: one matrix per expert."""

    def __init__(
        self, num_groups: int, in_features: int, out_features: int, *, bias: bool, ops: Ops
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_groups, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(num_groups, out_features)) if bias else None
        self.ops = ops

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        """Map x [rows, in], sorted by group from ``starts`` [groups + 1], to [rows, out]."""
        return self.ops.grouped_linear(x, self.weight, starts, self.bias)


class Norm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension, alone or after adding to the residual.

    ``shape`` is the weight's: (size,), or (heads, size) where each head has a weight of its own.
    """

    def __init__(self, shape: tuple[int, ...], spec: NormSpec, ops: Ops) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape)) if spec.has_bias else None
        self.spec = spec
        self.ops = ops

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size]."""
        if self.spec.kind == "rms":
            return self.ops.rms_norm(x, self.weight, self.spec.eps)
        return self.ops.layer_norm(x, self.weight, self.bias, self.spec.eps)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return (norm of residual + x, residual + x)."""
        if self.spec.kind == "rms":
            return self.ops.add_rms_norm(x, residual, self.weight, self.spec.eps)
        return self.ops.add_layer_norm(x, residual, self.weight, self.bias, self.spec.eps)

    def extra_repr(self) -> str:
        """Show kind, shape and eps in the module's printed form."""
        return f"{self.spec.kind}, {tuple(self.weight.shape)}, eps={self.spec.eps}"


class PlainJoin:
    """Add a branch to the residual sum; the next branch reads the sum as it is."""

    def sum(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the residual sum with x [num_tokens, hidden] in it."""
        return residual + x

    def read(self, residual: Tensor) -> Tensor:
        """Return what the next branch reads of the sum."""
        return residual

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Do both: return (what the next branch reads, the sum)."""
        total = self.sum(x, residual)
        return self.read(total), total


class PreNormJoin(PlainJoin):
    """The next branch reads the norm of the sum."""

    def __init__(self, norm: Norm) -> None:
        self.norm = norm

    def read(self, residual: Tensor) -> Tensor:
        """Return the norm of the sum."""
        return self.norm(residual)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Add and normalise in one op."""
        return self.norm.add(x, residual)


class SumNormJoin(PlainJoin):
    """The sum itself is normalised, as in the first transformers."""

    def __init__(self, norm: Norm) -> None:
        self.norm = norm

    def sum(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the norm of residual + x, which is the new residual sum."""
        return self.norm.add(x, residual)[0]


Join = PlainJoin | PreNormJoin | SumNormJoin
