"""The feed-forward part of a layer: one MLP, or a mixture of them.

Request path 6/8: from models.layers, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.kernels import Ops
from toolkit.models.parts import GroupedLinear, Linear, Part, SummedLinear
from toolkit.models.sharding import Shard
from toolkit.models.spec import ActivationName, MlpSpec, MoeSpec

__all__ = ["Mlp", "Moe", "feed_forward"]

Show = Callable[[str, Tensor], Tensor]  # show(point, x) -> x, or what replaces it


def feed_forward(
    hidden_size: int, spec: MlpSpec | MoeSpec, ops: Ops, shard: Shard | None = None
) -> Mlp | Moe:
    """Build the module that a layer's spec describes; of a ``shard``, it has the inner width."""
    if isinstance(spec, MoeSpec):
        return Moe(hidden_size, spec, ops, shard)
    return Mlp(hidden_size, spec, ops, shard)


def _gated(activation: ActivationName, ops: Ops) -> Callable[[Tensor], Tensor]:
    """Pick act(gate) * up, which halves the width."""
    if activation == "silu":
        return ops.silu_mul
    if activation == "relu":
        return _relu_mul
    return partial(ops.gelu_mul, approximate="tanh" if activation == "gelu_tanh" else "none")


def _relu_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.relu(gate) * up


_PLAIN: dict[ActivationName, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


class Mlp(Part):
    """One MLP, gated or not."""

    def __init__(
        self, hidden_size: int, spec: MlpSpec, ops: Ops, shard: Shard | None = None
    ) -> None:
        super().__init__()
        size = spec.intermediate_size
        if spec.gated:
            self.gate_up = Linear(
                hidden_size, 2 * size, bias=spec.bias, ops=ops, gate=spec.activation
            )
        else:
            self.up = Linear(hidden_size, size, bias=spec.bias, ops=ops)
        self.down = SummedLinear(size, hidden_size, bias=spec.bias, ops=ops, shard=shard)
        self.spec = spec
        self._act = _gated(spec.activation, ops) if spec.gated else _PLAIN[spec.activation]

    def _activate(self, x: Tensor) -> Tensor:
        """Compute what the down projection reads, [num_tokens, intermediate]."""
        if not self.spec.gated:
            return self._act(self.up(x))
        gate_up = self.gate_up(x)
        return gate_up if self.gate_up.is_gated else self._act(gate_up)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [num_tokens, hidden] to [num_tokens, hidden]."""
        return self.down(self._activate(x))

    def forward_shown(self, x: Tensor, show: Show) -> Tensor:
        """Do the same, with what lies between shown."""
        return self.down(show("mlp_act", self._activate(x)))


class Moe(Part):
    """A mixture of gated MLPs, computed expert by expert over the rows that picked it.

    Each row's result is a sum over its own experts in the order of their weights, so neither the
    batch nor the order of its rows changes what is added to what.
    """

    def __init__(
        self, hidden_size: int, spec: MoeSpec, ops: Ops, shard: Shard | None = None
    ) -> None:
        super().__init__()
        size, num_experts = spec.intermediate_size, spec.num_experts
        self.router = Linear(  # small, and a wrong expert is a large error: never quantised
            hidden_size, num_experts, bias=spec.bias, ops=ops, quantizes=False
        )
        self.gate_up = GroupedLinear(num_experts, hidden_size, 2 * size, bias=spec.bias, ops=ops)
        self.down = GroupedLinear(num_experts, size, hidden_size, bias=spec.bias, ops=ops)
        self.spec = spec
        self.shard = shard
        self._act = _gated(spec.activation, ops)
        if spec.swiglu_limit is not None:
            self._act = partial(_clamped_swiglu, limit=spec.swiglu_limit, alpha=spec.swiglu_alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [num_tokens, hidden] to [num_tokens, hidden]."""
        return self._mix(x, self.router(x))

    def forward_shown(self, x: Tensor, show: Show) -> Tensor:
        """Do the same, with the router's scores [num_tokens, num_experts] shown."""
        return self._mix(x, show("router", self.router(x)))

    def _mix(self, x: Tensor, scores: Tensor) -> Tensor:
        num_active = self.spec.num_active
        weights, experts = scores.float().softmax(dim=-1).topk(num_active, dim=-1)
        if self.spec.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        picked, order = experts.flatten().sort(stable=True)  # [num_tokens * num_active]
        # Not bincount: it waits for a GPU to say how long its result is.
        numbers = torch.arange(self.spec.num_experts + 1, device=x.device)
        starts = torch.searchsorted(picked, numbers)
        by_expert = self._act(self.gate_up(x[order // num_active], starts))
        by_expert = self.down(by_expert, starts)
        by_token = torch.empty_like(by_expert)
        by_token[order] = by_expert
        weighted = by_token.view(len(x), num_active, -1).float() * weights.unsqueeze(-1)
        mixed = weighted.sum(dim=1)
        if self.shard is not None:
            mixed = self.shard.sum(mixed)
        return mixed.to(x.dtype)


def _clamped_swiglu(gate_up: Tensor, *, limit: float, alpha: float) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (up + 1) * gate * torch.sigmoid(alpha * gate)
