"""The small parts of a layer: linear maps, norms, and how a branch joins the residual sum.

Request path 6/8: from models.layers, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from toolkit.kernels import Ops, PackedLinear
from toolkit.models.sharding import Shard
from toolkit.models.spec import NormSpec

__all__ = [
    "GroupedLinear",
    "Join",
    "Linear",
    "Norm",
    "Part",
    "Parts",
    "PlainJoin",
    "PreNormJoin",
    "SharedEmbedding",
    "SharedNorm",
    "SumNormJoin",
    "SummedLinear",
]


class Part(nn.Module):
    """A module that counts what is done to any of its kind: ``Part.changes``.

    Layers that run in one call (models.fused) hear of a changed part by it, at no cost to a step.
    """

    changes: ClassVar[int] = 0


def _counting(name: str) -> Callable[..., Any]:
    """Return nn.Module's method that counts as well, after it has taken effect."""

    @wraps(getattr(nn.Module, name))
    def method(self: Part, *args: Any, **options: Any) -> Any:
        try:
            return getattr(super(Part, self), name)(*args, **options)
        finally:
            Part.changes += 1

    return method


for _name in (
    "__setattr__",
    "__delattr__",
    "register_parameter",
    "register_buffer",
    "register_module",
    "register_forward_hook",
    "register_forward_pre_hook",
    "_apply",
):
    setattr(Part, _name, _counting(_name))


class Parts(Part, nn.ModuleList):
    """A list of parts, which is one itself."""


class Linear(Part, nn.Linear):
    """A linear map through the chosen kernels.

    ``pack`` lays the weight out as the kernels read it best; where they have such a layout, the
    plain ``weight`` is gone after it, and ``dense_weight`` gives a copy of it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        ops: Ops,
        quantizes: bool = True,
        gate: str | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.ops = ops
        self.quantizes = quantizes  # whether ``pack`` may quantise the weight
        self.gate = gate  # an activation that the packed map may compute as well
        self.is_gated = False  # whether it does
        self.packed: PackedLinear | None = None  # by ``pack``

    def pack(self, quantization: str | None = None) -> None:
        """Prepare the map for many calls; ``quantization`` is None, "int8" or "int4"."""
        wanted = quantization if self.quantizes else None
        self.packed = self.ops.pack_linear(
            self.weight, self.bias, quantization=wanted, gate=self.gate
        )
        if self.packed is not None:
            self.is_gated = self.packed.is_gated
            self.register_parameter("weight", None)

    def dense_weight(self) -> Tensor:
        """Return the matrix [out, in] that multiplies, whatever its layout; dequantised."""
        return self.weight if self.packed is None else self.packed.dense()

    def forward(self, x: Tensor) -> Tensor:
        """Map x [num_tokens, in] to [num_tokens, out], or [num_tokens, out / 2] if gated."""
        if self.packed is not None:
            return self.packed(x)
        return self.ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the layout of the weight beside its size."""
        return super().extra_repr() + ("" if self.packed is None else f", {self.packed!r}")


class SummedLinear(Linear):
    """A linear map of which every process has some columns: what they compute is added."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool, ops: Ops, shard: Shard | None
    ) -> None:
        super().__init__(in_features, out_features, bias=bias, ops=ops)
        self.shard = shard

    def forward(self, x: Tensor) -> Tensor:
        """Map this process's columns of x, and add the others' results to its own."""
        own = super().forward(x)
        return own if self.shard is None else self.shard.sum(own)


class SharedEmbedding(nn.Embedding):
    """Embeddings of which every process has those of some tokens."""

    def __init__(self, vocab_size: int, width: int, shard: Shard) -> None:
        count = -(-vocab_size // shard.size)
        super().__init__(count, width)
        self.shard = shard
        self.tokens = shard.tokens(vocab_size)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Look up tokens [num_tokens], whoever has them."""
        rows = token_ids - self.tokens.start
        is_elsewhere = (rows < 0) | (rows >= len(self.tokens))
        own = super().forward(rows.masked_fill(is_elsewhere, 0))
        return self.shard.sum(own.masked_fill(is_elsewhere.unsqueeze(-1), 0.0))


class GroupedLinear(Part):
    """A linear map for each of several groups of rows: one matrix per expert."""

    def __init__(
        self, num_groups: int, in_features: int, out_features: int, *, bias: bool, ops: Ops
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_groups, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(num_groups, out_features)) if bias else None
        self.ops = ops
        self.num_groups, self.in_features = num_groups, in_features
        self.out_features = out_features
        self._packed: list[PackedLinear] = []

    def pack(self, quantization: str | None = None) -> None:
        """Prepare every group's map for many calls, as ``Linear.pack`` does."""
        biases = [None] * len(self.weight) if self.bias is None else self.bias
        for weight, bias in zip(self.weight, biases, strict=True):
            packed = self.ops.pack_linear(weight, bias, quantization=quantization)
            if packed is None:
                return
            self._packed.append(packed)
        self.register_parameter("weight", None)

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        """Map x [rows, in], sorted by group from ``starts`` [groups + 1], to [rows, out]."""
        if not self._packed:
            return self.ops.grouped_linear(x, self.weight, starts, self.bias)
        out = x.new_empty(x.shape[0], self.out_features)
        for packed, (start, end) in zip(self._packed, pairwise(starts.tolist()), strict=True):
            if start < end:
                out[start:end] = packed(x[start:end])
        return out


class Norm(Part):
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


class SharedNorm(Norm):
    """RMSNorm over a dimension of which every process has a part of the same size."""

    def __init__(self, shape: tuple[int, ...], spec: NormSpec, ops: Ops, shard: Shard) -> None:
        super().__init__(shape, spec, ops)
        self.shard = shard

    def forward(self, x: Tensor) -> Tensor:
        """Normalise this process's part of x [num_tokens, part], by the mean over all parts."""
        wide = x.float()
        total = self.shard.sum(wide.pow(2).sum(-1, keepdim=True))
        mean = total / (x.shape[-1] * self.shard.size)
        normed = wide * torch.rsqrt(mean + self.spec.eps)
        return (self.weight * normed.to(self.weight.dtype)).to(x.dtype)


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


@dataclass(frozen=True)
class PreNormJoin(PlainJoin):
    """The next branch reads the norm of the sum."""

    norm: Norm

    def read(self, residual: Tensor) -> Tensor:
        """Return the norm of the sum."""
        return self.norm(residual)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Add and normalise in one op, or in two if a hook waits for the norm's call."""
        if self.norm._forward_hooks or self.norm._forward_pre_hooks:
            return super().add(x, residual)
        return self.norm.add(x, residual)


@dataclass(frozen=True)
class SumNormJoin(PlainJoin):
    """The sum itself is normalised, as in the first transformers."""

    norm: Norm

    def sum(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the norm of residual + x, which is the new residual sum."""
        return self.norm.add(x, residual)[0]


Join = PlainJoin | PreNormJoin | SumNormJoin
