"""Run one decoder layer: the fused path, and the unfused one that shows its activations.

The parts are small steps, so both paths compute with the same ones. Fused are query, key and value
(one matrix), gate and up (one matrix), and the residual addition with the norm that follows it.
Request path 6/8: from models.decoder, to kernels.ops.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from toolkit.kernels import Ops
from toolkit.models.attention import Attention, LayerCache, Placement
from toolkit.models.mlp import Show, feed_forward
from toolkit.models.parts import Join, Norm, Part, PlainJoin, PreNormJoin, SumNormJoin
from toolkit.models.sharding import Shard
from toolkit.models.spec import DecoderSpec

__all__ = ["Layer"]


class Layer(Part):
    """An attention and an MLP around the residual sum, in any of the spec's forms.

    ``enter`` gives what the attention reads of the sum; ``leave`` joins the MLP's output to it
    where the layer has a norm of its own for that, else it is None and the next layer's ``enter``
    does it. Of a ``shard``, the spec is the one of its own part.
    """

    def __init__(self, spec: DecoderSpec, layer: int, ops: Ops, shard: Shard | None = None) -> None:
        super().__init__()

        def norm() -> Norm:
            return Norm((spec.hidden_size,), spec.norm, ops)

        self.attention = Attention(spec, layer, ops, shard)
        self.mlp = feed_forward(spec.hidden_size, spec.mlp_of(layer), ops, shard)
        self.is_parallel = spec.layer != "serial"
        self.scale = spec.residual_scale
        if spec.norms != "post":
            self.attn_norm = norm()
        if spec.norms != "post" and spec.layer != "parallel, one norm":
            self.mlp_norm = norm()
        has_out_norms = spec.norms in ("post", "sandwich")
        self.attn_out_norm = norm() if has_out_norms else None
        self.mlp_out_norm = norm() if has_out_norms else None

        self.enter: Join = PlainJoin()
        self.middle: Join = PlainJoin()
        self.leave: Join | None = None
        if spec.norms == "sum":
            self.middle, self.leave = SumNormJoin(self.attn_norm), SumNormJoin(self.mlp_norm)
        elif spec.norms != "post":
            self.enter = PreNormJoin(self.attn_norm)
            if spec.layer != "parallel, one norm":
                self.middle = PreNormJoin(self.mlp_norm)
        self.has_one_norm = spec.layer == "parallel, one norm"

    def forward(
        self, x: Tensor, residual: Tensor, cache: LayerCache, placement: Placement
    ) -> tuple[Tensor, Tensor]:
        """Return (what is yet to be added, the residual sum), each [num_tokens, hidden].

        ``x`` is what the attention reads of ``residual``: whoever adds to the sum applies the next
        norm in the same op.
        """
        attn_out = self._branch(self.attention(x, cache, placement), self.attn_out_norm)
        if self.is_parallel:
            x = x if self.has_one_norm else self.middle.read(residual)
            return attn_out + self._branch(self.mlp(x), self.mlp_out_norm), residual
        x, residual = self.middle.add(attn_out, residual)
        return self._branch(self.mlp(x), self.mlp_out_norm), residual

    def forward_shown(
        self,
        residual: Tensor,
        join: Join,
        cache: LayerCache,
        placement: Placement,
        show: Show,
        *,
        with_probs: bool,
    ) -> Tensor:
        """Return the residual sum after this layer; ``show(point, x)`` may replace every part.

        ``join`` is how the layer's output joins the sum.
        """
        attention = self.attention
        residual = show("resid_pre", residual)
        x = self.enter.read(residual)
        query, key, value = attention.project(x, placement)
        query, key, value = show("q", query), show("k", key), show("v", value)
        show_probs = partial(show, "attn_probs") if with_probs else None
        heads = attention.attend(query, key, value, cache, placement, show_probs)
        attn_out = attention.out(show("head_out", heads).flatten(1))
        attn_out = show("attn_out", self._branch(attn_out, self.attn_out_norm))
        if not self.is_parallel:
            residual = show("resid_mid", self.middle.sum(attn_out, residual))
        if not self.has_one_norm:
            x = self.middle.read(residual)
        mlp_out = self.mlp.forward_shown(show("mlp_in", x), show)
        mlp_out = show("mlp_out", self._branch(mlp_out, self.mlp_out_norm))
        added = attn_out + mlp_out if self.is_parallel else mlp_out
        return show("resid_post", join.sum(added, residual))

    def _branch(self, out: Tensor, norm: Norm | None) -> Tensor:
        """Return what a branch adds to the residual sum."""
        out = out if norm is None else norm(out)
        return out if self.scale == 1.0 else out * self.scale
