"""Turn what a user calls a point into points of a decoder: wildcards, TransformerLens' names.

TransformerLens                         here
hook_embed                              embed (learned positions are added already)
blocks.5.hook_resid_pre, _mid, _post    layers.5.resid_pre, resid_mid, resid_post
blocks.5.attn.hook_q, hook_rot_q        layers.5.q (after rotary, under either name)
blocks.5.attn.hook_k, hook_rot_k        layers.5.k (after rotary, under either name)
blocks.5.attn.hook_v                    layers.5.v
blocks.5.attn.hook_pattern              layers.5.attn_probs
blocks.5.attn.hook_z                    layers.5.head_out
blocks.5.hook_attn_out, hook_mlp_out    layers.5.attn_out, mlp_out
blocks.5.ln2.hook_normalized            layers.5.mlp_in
blocks.5.mlp.hook_post                  layers.5.mlp_act
ln_final.hook_normalized                final_norm
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from toolkit.errors import InvalidRequest
from toolkit.models import DecoderSpec, available_points, check_point

__all__ = ["Point", "canonical", "resolve"]

_WHOLE = {"hook_embed": "embed", "ln_final.hook_normalized": "final_norm"}
_IN_LAYER = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "attn.hook_q": "q",
    "attn.hook_rot_q": "q",
    "attn.hook_k": "k",
    "attn.hook_rot_k": "k",
    "attn.hook_v": "v",
    "attn.hook_pattern": "attn_probs",
    "attn.hook_z": "head_out",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "ln2.hook_normalized": "mlp_in",
    "mlp.hook_post": "mlp_act",
}


class Point(NamedTuple):
    """One place in a forward pass, as a decoder's tap names it."""

    name: str  # "resid_post"
    layer: int | None  # None for embed, final_norm and logits

    def __str__(self) -> str:
        return self.name if self.layer is None else f"layers.{self.layer}.{self.name}"


def canonical(name: str, num_layers: int | None = None) -> str:
    """Return our name of a point that TransformerLens may have named; others as they are.

    Where ``num_layers`` is given, a layer may count from the end.

    >>> canonical("blocks.5.attn.hook_z")
    'layers.5.head_out'
    >>> canonical("blocks.-1.attn.hook_z", num_layers=6)
    'layers.5.head_out'
    """
    if num_layers is not None:
        return _from_the_end(canonical(name), num_layers)
    if name in _WHOLE:
        return _WHOLE[name]
    if name.startswith("blocks."):
        _, _, rest = name.partition(".")
        layer, _, inside = rest.partition(".")
        if inside in _IN_LAYER:
            return f"layers.{layer}.{_IN_LAYER[inside]}"
    return name


def resolve(spec: Any, pattern: str) -> tuple[Point, ...]:
    """Return the points that a name means, in the order in which a forward pass reaches them.

    ``*`` stands for anything, but attn_probs must be named: no fast kernel computes them. A layer
    may count from the end: "layers.-1.resid_post".

    Raises:
        InvalidRequest: the decoder has no such point; the message lists what it has.
    """
    if not isinstance(pattern, str):
        raise InvalidRequest(
            f'a point is a name such as "layers.5.resid_post", not {pattern!r:.80}', param="hooks"
        )
    if not isinstance(spec, DecoderSpec):
        raise InvalidRequest(
            f"{spec.family} runs in transformers' own code, which shows no activations: "
            "hooks need a model that one of the toolkit's families describes",
            param="hooks",
        )
    name = canonical(pattern, spec.num_layers)
    found = [
        point
        for point in available_points(spec)
        if fnmatchcase(point, name)
        and (_last(point) != "attn_probs" or _last(name) == _last(point))
    ]
    if not found:
        try:
            check_point(spec, name)
        except InvalidRequest as error:
            error.param = "hooks"
            raise
    return tuple(map(_parse, found))


def _from_the_end(name: str, num_layers: int) -> str:
    parts = name.split(".")
    if parts[0] == "layers" and len(parts) == 3 and parts[1].startswith("-"):
        try:
            parts[1] = str(int(parts[1]) + num_layers)
        except ValueError:
            return name
    return ".".join(parts)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _parse(point: str) -> Point:
    parts = point.split(".")
    return Point(parts[-1], int(parts[1]) if len(parts) == 3 else None)
