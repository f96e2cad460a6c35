"""Name the places in a forward pass where an activation can be seen and replaced.

Shapes of x, the rows always those of the flat batch:

    embed                 [num_tokens, hidden]
    resid_pre, resid_mid, resid_post
                          [num_tokens, hidden], the full residual sum before the attention, between
                          attention and MLP, and after the MLP; a parallel layer has no resid_mid
    q, k, v               [num_tokens, heads, head_dim]; q and k after rotary; k and v are what the
                          cache receives
    attn_probs            [rows asked for, num_heads, max_context] float32, 0 past a row's context
    head_out              [num_tokens, num_heads, head_dim], before the output projection
    attn_out, mlp_out     [num_tokens, hidden], what is added to the residual sum
    mlp_in                [num_tokens, hidden], what the MLP reads
    mlp_act               [num_tokens, intermediate], what the down projection reads; a mixture of
                          experts has none
    router                [num_tokens, num_experts], a mixture's scores before the softmax
    final_norm            [num_tokens, hidden]
    logits                [rows asked for, vocab] float32
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from toolkit.errors import InvalidRequest
from toolkit.models.spec import DecoderSpec, MlpSpec, MoeSpec

__all__ = ["Tap", "available_points", "check_point", "row_shape"]

# tap(point, layer, x) -> x or what replaces it, of the same shape and dtype. ``point`` has no layer
# in it ("resid_pre"); ``layer`` is None for embed, final_norm and logits.
Tap: TypeAlias = Callable[[str, int | None, Tensor], Tensor]

_ATTENTION_POINTS = ("resid_pre", "q", "k", "v", "attn_probs", "head_out", "attn_out")


def available_points(spec: DecoderSpec) -> tuple[str, ...]:
    """List the points of a decoder in the order in which a forward pass reaches them."""
    layers = [
        f"layers.{layer}.{point}"
        for layer in range(spec.num_layers)
        for point in _layer_points(spec, layer)
    ]
    return ("embed", *layers, "final_norm", "logits")


def _layer_points(spec: DecoderSpec, layer: int) -> tuple[str, ...]:
    middle = ("resid_mid",) if spec.layer == "serial" else ()
    inside = "router" if isinstance(spec.mlp_of(layer), MoeSpec) else "mlp_act"
    return (*_ATTENTION_POINTS, *middle, "mlp_in", inside, "mlp_out", "resid_post")


def check_point(spec: DecoderSpec, point: str) -> None:
    """Raise InvalidRequest, naming the points there are, unless the decoder has this one."""
    if point in available_points(spec):
        return
    names = dict.fromkeys(
        name for layer in range(spec.num_layers) for name in _layer_points(spec, layer)
    )
    raise InvalidRequest(
        f"{spec.family} has no point {point!r}; it has embed, final_norm, logits and, for i from 0 "
        f"to {spec.num_layers - 1}, layers.{{i}}. with {', '.join(names)}"
    )


def row_shape(spec: DecoderSpec, point: str) -> tuple[int, ...] | None:
    """Return the shape of one row of x at a point that the decoder has.

    None for attn_probs, whose width is the context's.
    """
    layer, name = _split(point)
    attention = spec.attention
    if name in ("q", "head_out"):
        return attention.num_heads, attention.head_dim
    if name in ("k", "v"):
        return attention.num_kv_heads, attention.head_dim
    if name == "attn_probs":
        return None
    if name == "logits":
        return (spec.vocab_size,)
    inside = None if layer is None else spec.mlp_of(layer)
    if name == "mlp_act" and isinstance(inside, MlpSpec):
        return (inside.intermediate_size,)
    if name == "router" and isinstance(inside, MoeSpec):
        return (inside.num_experts,)
    return (spec.hidden_size,)


def _split(point: str) -> tuple[int | None, str]:
    """Return layer and name of a point: (5, "q") of "layers.5.q", (None, "embed") of "embed"."""
    if not point.startswith("layers."):
        return None, point
    _, layer, name = point.split(".")
    return int(layer), name
