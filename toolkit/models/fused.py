"""Hand a decoder's layers to the kernels in one piece, where they are of the plain kind.

Most models' layers are: serial, normalised before each branch, with a gated MLP. All others run op
by op, and so do layers with a tap on them, or that somebody has changed.
Request path 6/8: from models.decoder, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import is_

import torch
from torch import Tensor, nn

from toolkit.kernels.contracts import LayerParts, StackParts
from toolkit.models.layers import Layer
from toolkit.models.mlp import Mlp
from toolkit.models.parts import Norm, Part
from toolkit.models.rope import RopeTable
from toolkit.models.spec import DecoderSpec

__all__ = ["Untouched", "stack_parts"]


# Attributes of modules that say how they compute.
_SETTINGS = ("ops", "packed", "spec", "scale", "window", "interleaved", "enter", "middle", "leave")


class Untouched:
    """Notice what was done to parts since: one replaced, or a setting of it, or a hook.

    Layers in one call know nothing of it, so it is asked for before every step. While no part of
    any model was changed, one comparison answers; else the parts are gone through.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = list(modules)
        self._parts = [part for m in modules for part in (m._modules, m._parameters)]
        self._hooks = [hook for m in modules for hook in (m._forward_hooks, m._forward_pre_hooks)]
        settings = [
            (m.__dict__, name)
            for m in modules
            for name in ("forward", *_SETTINGS)
            if name in m.__dict__ or name == "forward"
        ]
        self._attributes, self._names = zip(*settings, strict=True)
        self._before = list(self._state())
        self._changes = Part.changes
        self._is_untouched = True

    def __call__(self) -> bool:
        """Return whether nothing was done."""
        if self._changes != Part.changes or not self._is_untouched:
            self._changes = Part.changes
            self._is_untouched = not any(self._hooks) and all(map(is_, self._state(), self._before))
        return self._is_untouched

    def _state(self) -> Iterator[object]:
        parts = chain.from_iterable(map(dict.values, self._parts))
        return chain(parts, map(dict.get, self._attributes, self._names))


def stack_parts(
    spec: DecoderSpec,
    layers: Sequence[Layer],
    ropes: Sequence[RopeTable | None],
    final_norm: Norm,
    alibi_slopes: Tensor | None,
    dtype: torch.dtype,
) -> StackParts | None:
    """Describe packed layers for ``Ops.fuse_layers``; None where one is not plain.

    ``ropes`` has each layer's table.
    """
    attention = spec.attention
    first = layers[0].attention
    if not _is_plain(spec):
        return None
    parts = [_layer_parts(layer, rope) for layer, rope in zip(layers, ropes, strict=True)]
    if not all(parts):
        return None
    return StackParts(
        layers=[part for part in parts if part is not None],
        final_norm=(final_norm.weight, final_norm.bias),
        norm=spec.norm.kind,
        norm_eps=spec.norm.eps,
        head_norm_eps=first.q_norm.spec.eps if first.norms_each_head else 0.0,
        activation=spec.mlp.activation,
        hidden_size=spec.hidden_size,
        num_heads=attention.num_heads,
        num_kv_heads=attention.num_kv_heads,
        head_dim=attention.head_dim,
        softcap=attention.softcap,
        alibi_slopes=alibi_slopes,
        dtype=dtype,
    )


def _is_plain(spec: DecoderSpec) -> bool:
    attention = spec.attention
    has_plain_heads = attention.clip_qkv is None and (
        attention.qk_norm is None
        or (attention.qk_norm.kind == "rms" and attention.qk_norm_over == "head")
    )
    return (
        spec.layer == "serial"
        and spec.norms == "pre"
        and spec.final_norm
        and spec.residual_scale == 1.0
        and spec.mlp.gated
        and has_plain_heads
    )


def _layer_parts(layer: Layer, rope: RopeTable | None) -> LayerParts | None:
    attention, mlp = layer.attention, layer.mlp
    if not isinstance(mlp, Mlp):
        return None
    qkv, out = attention.qkv.packed, attention.out.packed
    gate_up, down = mlp.gate_up.packed, mlp.down.packed
    if qkv is None or out is None or gate_up is None or down is None:
        return None
    head_norms = None
    if attention.norms_each_head:
        head_norms = attention.q_norm.weight, attention.k_norm.weight
    return LayerParts(
        qkv=qkv,
        out=out,
        gate_up=gate_up,
        down=down,
        attn_norm=(layer.attn_norm.weight, layer.attn_norm.bias),
        mlp_norm=(layer.mlp_norm.weight, layer.mlp_norm.bias),
        head_norms=head_norms,
        rotation=None if rope is None else (rope.cos, rope.sin),
        interleaved=attention.interleaved,
        sinks=attention.sinks,
        window=attention.window,
        scale=attention.scale,
    )
