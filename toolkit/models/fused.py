"""Hand a decoder's layers to the kernels in one piece, where they are of the plain kind.

Most models' layers are: serial, normalised before each branch, with a gated MLP. All others run op
by op, and so do layers with a tap on them, or that somebody has changed.
Request path 6/8: from models.decoder, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from toolkit.kernels.contracts import LayerParts, StackParts
from toolkit.models.layers import Layer
from toolkit.models.mlp import Mlp
from toolkit.models.parts import Norm, Part
from toolkit.models.rope import RopeTable
from toolkit.models.spec import DecoderSpec

__all__ = ["Untouched", "stack_parts"]


# What every module has: how one computes is in the rest.
_OF_ANY_MODULE = frozenset(nn.Module().__dict__)


class Untouched:
    """Notice what was done to a decoder's parts since: one replaced, or an attribute, or a hook.

    Layers in one call know nothing of it, so it is asked for before every step. While no part of
    any model was changed, one comparison answers; else the parts are gone through. Not seen are a
    parameter's ``.data`` set to another tensor, and a class whose methods were replaced.

    Args:
        decoder: Whose own modules and buffers count too, and no other attribute.
        parts: The modules that the one call stands for.
    """

    def __init__(self, decoder: nn.Module, parts: Iterable[nn.Module]) -> None:
        parts = list(parts)
        self._hooks = [
            hooks for part in parts for hooks in (part._forward_hooks, part._forward_pre_hooks)
        ]
        self._hooks += [_global_forward_hooks, _global_forward_pre_hooks]
        self._dicts = [decoder._modules, decoder._buffers]
        for part in parts:
            self._dicts += [part._modules, part._parameters, part._buffers]
        self._attributes = [part.__dict__ for part in parts]
        self._before, self._places = self._state(), self._addresses()
        self._seen = (Part.changes, True)

    def __call__(self) -> bool:
        """Return whether nothing was done."""
        changes = Part.changes
        seen, is_untouched = self._seen
        is_hooked = _global_forward_hooks or _global_forward_pre_hooks
        if changes == seen and is_untouched and not is_hooked:
            return True
        is_untouched = not any(self._hooks) and self._is_as_before()
        self._seen = (changes, is_untouched)
        return is_untouched

    def _is_as_before(self) -> bool:
        now = self._state()
        is_same = len(now) == len(self._before) and all(map(is_, now, self._before))
        return is_same and self._addresses() == self._places

    def _state(self) -> list[object]:
        """List the objects that may not be replaced."""
        state = [value for entries in self._dicts for value in entries.values()]
        for attributes in self._attributes:
            state += [value for name, value in attributes.items() if name not in _OF_ANY_MODULE]
            state.append(attributes.get("forward"))
        return state

    def _addresses(self) -> list[tuple[int, torch.dtype]]:
        """List where the tensors lie: a cast keeps the parameter and moves its numbers."""
        values = (value for entries in self._dicts for value in entries.values())
        return [(x.data_ptr(), x.dtype) for x in values if isinstance(x, Tensor)]


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
