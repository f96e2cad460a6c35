"""Run one decoder layer: the fused path, and the unfused one that shows its activations.

The parts are small steps, so both paths compute with the same ones. Fused are query, key and value
(one matrix), gate and up (one matrix), and the residual addition with the norm that follows it.
Request path 6/8: from models.decoder, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.kernels import Ops
from toolkit.kernels.reference import attention_probs, mix_values
from toolkit.models.batch import FlatBatch
from toolkit.models.spec import DecoderSpec, MlpSpec, NormSpec

__all__ = ["Layer", "LayerCache", "Linear", "Norm", "Placement"]

LayerCache = tuple[Tensor, Tensor]  # keys, values: [num_blocks, num_kv_heads, block_size, head_dim]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a step's tokens stand, in the cache and in their sequences; the same for all layers."""

    batch: FlatBatch
    rotation: tuple[Tensor, Tensor] | None  # cos, sin: [num_tokens, rotary_dim / 2] float32
    alibi_slopes: Tensor | None  # [num_heads] float32


class Linear(nn.Linear):
    """A linear map through the chosen kernels."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, ops: Ops) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.ops = ops

    def forward(self, x: Tensor) -> Tensor:
        """Map x [num_tokens, in] to [num_tokens, out]."""
        return self.ops.linear(x, self.weight, self.bias)


class Norm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension, alone or after adding to the residual."""

    def __init__(self, size: int, spec: NormSpec, ops: Ops) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.spec = spec
        self.ops = ops

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size]."""
        if self.spec.kind == "rms":
            return self.ops.rms_norm(x, self.weight, self.spec.eps)
        return self.ops.layer_norm(x, self.weight, None, self.spec.eps)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return (norm of residual + x, residual + x)."""
        if self.spec.kind == "rms":
            return self.ops.add_rms_norm(x, residual, self.weight, self.spec.eps)
        return self.ops.add_layer_norm(x, residual, self.weight, None, self.spec.eps)

    def extra_repr(self) -> str:
        """Show kind, width and eps in the module's printed form."""
        return f"{self.spec.kind}, {len(self.weight)}, eps={self.spec.eps}"


class Attention(nn.Module):
    """Project, write keys and values, attend over the paged cache, project back."""

    def __init__(self, spec: DecoderSpec, layer: int, ops: Ops) -> None:
        super().__init__()
        attention = spec.attention
        qkv_dim = attention.query_dim + 2 * attention.kv_dim
        self.qkv = Linear(spec.hidden_size, qkv_dim, bias=attention.qkv_bias, ops=ops)
        self.out = Linear(attention.query_dim, spec.hidden_size, bias=attention.out_bias, ops=ops)
        if attention.qk_norm is not None:
            self.q_norm = Norm(attention.head_dim, attention.qk_norm, ops)
            self.k_norm = Norm(attention.head_dim, attention.qk_norm, ops)
        self.spec = attention
        self.window = attention.windows[layer]
        self.ops = ops

    def project(self, x: Tensor, placement: Placement) -> tuple[Tensor, Tensor, Tensor]:
        """Compute query, key and value [num_tokens, heads, head_dim] as the cache takes them."""
        qkv = self.qkv(x)
        if self.spec.clip_qkv is not None:
            qkv = qkv.clamp(-self.spec.clip_qkv, self.spec.clip_qkv)
        heads = qkv.unflatten(-1, (-1, self.spec.head_dim))
        num_kv_heads = self.spec.num_kv_heads
        query, key, value = heads.split((self.spec.num_heads, num_kv_heads, num_kv_heads), dim=1)
        if self.spec.qk_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        if placement.rotation is not None:
            query, key = self.ops.rotary(query, key, *placement.rotation)
        return query, key, value

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cache: LayerCache,
        placement: Placement,
        show_probs: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Cache key and value, then return each head's output [num_tokens, num_heads, head_dim].

        ``show_probs`` gets the probabilities and returns those to use.
        """
        key_cache, value_cache = cache
        batch = placement.batch
        where = (batch.block_tables, batch.query_starts, batch.context_lens)
        how = {
            "scale": self.spec.scale,
            "alibi_slopes": placement.alibi_slopes,
            "window": self.window,
        }
        self.ops.write_kv(key, value, key_cache, value_cache, batch.slots)
        if show_probs is None:
            return self.ops.paged_attention(query, key_cache, value_cache, *where, **how)
        probs = show_probs(attention_probs(query, key_cache, *where, **how))
        return mix_values(probs, value_cache, *where)

    def forward(self, x: Tensor, cache: LayerCache, placement: Placement) -> Tensor:
        """Return what attention adds to the residual sum, [num_tokens, hidden]."""
        query, key, value = self.project(x, placement)
        return self.out(self.attend(query, key, value, cache, placement).flatten(1))


def _activation(spec: MlpSpec, ops: Ops) -> Callable[[Tensor], Tensor]:
    """Pick what lies between the MLP's matrices; a gated one halves the width."""
    if spec.activation == "silu":
        return ops.silu_mul if spec.gated else functional.silu
    approximate = "tanh" if spec.activation == "gelu_tanh" else "none"
    return partial(ops.gelu_mul if spec.gated else functional.gelu, approximate=approximate)


class Mlp(nn.Module):
    """The feed-forward part, gated or not."""

    def __init__(self, hidden_size: int, spec: MlpSpec, ops: Ops) -> None:
        super().__init__()
        size = spec.intermediate_size
        if spec.gated:
            self.gate_up = Linear(hidden_size, 2 * size, bias=spec.bias, ops=ops)
        else:
            self.up = Linear(hidden_size, size, bias=spec.bias, ops=ops)
        self.down = Linear(size, hidden_size, bias=spec.bias, ops=ops)
        self.spec = spec
        self._act = _activation(spec, ops)

    def activate(self, x: Tensor) -> Tensor:
        """Compute what the down projection reads, [num_tokens, intermediate]."""
        return self._act(self.gate_up(x) if self.spec.gated else self.up(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the MLP adds to the residual sum, [num_tokens, hidden]."""
        return self.down(self.activate(x))


class Layer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, spec: DecoderSpec, layer: int, ops: Ops) -> None:
        super().__init__()
        self.attn_norm = Norm(spec.hidden_size, spec.norm, ops)
        self.attention = Attention(spec, layer, ops)
        self.mlp_norm = Norm(spec.hidden_size, spec.norm, ops)
        self.mlp = Mlp(spec.hidden_size, spec.mlp, ops)

    def forward(
        self, normed: Tensor, residual: Tensor, cache: LayerCache, placement: Placement
    ) -> tuple[Tensor, Tensor]:
        """Return (the MLP's output, not yet added; the residual sum), each [num_tokens, hidden].

        ``normed`` is attn_norm of ``residual``: whoever adds to the residual applies the next norm
        in the same op.
        """
        attn_out = self.attention(normed, cache, placement)
        normed, residual = self.mlp_norm.add(attn_out, residual)
        return self.mlp(normed), residual

    def forward_shown(
        self,
        residual: Tensor,
        cache: LayerCache,
        placement: Placement,
        show: Callable[[str, Tensor], Tensor],
        *,
        with_probs: bool,
    ) -> Tensor:
        """Return the residual sum after this layer; ``show(point, x)`` may replace every part."""
        attention = self.attention
        residual = show("resid_pre", residual)
        query, key, value = attention.project(self.attn_norm(residual), placement)
        query, key, value = show("q", query), show("k", key), show("v", value)
        show_probs = partial(show, "attn_probs") if with_probs else None
        heads = attention.attend(query, key, value, cache, placement, show_probs)
        attn_out = show("attn_out", attention.out(show("head_out", heads).flatten(1)))
        residual = show("resid_mid", residual + attn_out)
        mlp_act = self.mlp.activate(show("mlp_in", self.mlp_norm(residual)))
        mlp_out = show("mlp_out", self.mlp.down(show("mlp_act", mlp_act)))
        return show("resid_post", residual + mlp_out)
