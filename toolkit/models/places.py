"""Find where each tensor of a checkpoint goes: which part of which parameter, in what layout.

Our parameters are fused (query, key and value in one matrix, gate and up in one); checkpoints hold
them apart, interleaved or transposed. A family's map says which, as ``module:part``:

    q k v                   the rows of one of them in the fused matrix
    gate up                 the upper and the lower half of its rows
    by group                fused already, but as [kv head, (its queries, key, value)] (GPT-NeoX)
    transposed              [in, out] (GPT-2)
    transposed pairs        [in, out], gate and up in turn (gpt-oss); of a bias, pairs alone
    plus one                a norm's weight, stored less 1 (Gemma)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from toolkit.errors import CheckpointError
from toolkit.models.parts import GroupedLinear
from toolkit.models.sharding import Cut, Shard, find_cut
from toolkit.models.spec import AttentionSpec, DecoderSpec

__all__ = ["Place", "find_places"]


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a parameter, and how a checkpoint's tensor is brought into its layout."""

    target: str  # unique per part: two names of one part are alternatives
    view: Tensor  # of the parameter
    shape: tuple[int, ...]  # that the checkpoint's tensor must have
    arrange: Callable[[Tensor], Tensor]
    cut: Cut | None = None  # what this process holds of the tensor; None for all of it

    def fill(self, name: str, tensor: Tensor) -> None:
        """Copy a checkpoint's tensor in; raise CheckpointError if it does not fit."""
        if not tensor.is_floating_point() or tensor.itemsize == 1:
            raise CheckpointError(
                f"tensor {name} is {tensor.dtype}: quantised, and config.json does not say how"
            )
        if tuple(tensor.shape) != self.shape:
            raise CheckpointError(
                f"tensor {name} has shape {tuple(tensor.shape)}, the config asks for {self.shape}"
            )
        if self.cut is None:
            self.view.copy_(self.arrange(tensor))
        else:
            self.cut.fill(self.view, self.arrange(tensor))


def find_places(
    module: nn.Module, names: Mapping[str, str], shard: Shard | None = None
) -> dict[str, Place]:
    """Map each name that a checkpoint may use to its place in a decoder.

    ``names`` is a family's (models.families.family): ``{i}`` runs over the layers, ``{n}`` over the
    first dimension of the parameter (experts, heads). A name without ``.weight`` or ``.bias`` is a
    module's, and stands for both. Where the decoder is only a ``shard``, a place takes a whole
    tensor all the same, and keeps a part.
    """
    spec: DecoderSpec = module.spec
    own = spec if shard is None else shard.spec(spec)
    parameters = dict(module.named_parameters())
    grouped = {path for path, part in module.named_modules() if isinstance(part, GroupedLinear)}
    places: dict[str, Place] = {}
    for theirs, ours in names.items():
        pattern, _, part = ours.partition(":")
        for layer in range(spec.num_layers if "{i}" in ours else 1):
            path = pattern.format(i=layer)
            # Where some layers have experts and others do not, both kinds of names are in the map.
            suffixes = ("",) if _are_others(theirs, path in grouped) else ("", ".weight", ".bias")
            for suffix in suffixes:
                parameter = parameters.get(path + suffix)
                if parameter is None:
                    continue
                cut = None if shard is None else find_cut(path + suffix, part, spec, shard)
                each = _each(parameter, cut) if "{n}" in theirs else [(parameter, cut)]
                for n, (view, its_cut) in enumerate(each):
                    name = theirs.format(i=layer, n=n) + suffix
                    target = f"{path}{suffix}:{part}:{n}"
                    view = _rows(view, part, own.attention)
                    places[name] = _place(target, view, part, its_cut, spec.attention)
    return places


def _are_others(theirs: str, is_grouped: bool) -> bool:
    """Whether a name is an expert's and the layer has none, or the other way round."""
    return (".experts." in theirs) != is_grouped


def _each(parameter: Tensor, cut: Cut | None) -> list[tuple[Tensor, Cut | None]]:
    """Return each expert's or head's part of a parameter, and what of it is this process's."""
    if cut is None or parameter.dim() + cut.dim > 0:  # of all experts, the same part
        return [(view, cut) for view in parameter]
    (own,) = cut.ranges  # some heads are others'
    elsewhere = parameter.new_empty(0), Cut(-1, parameter.shape[-1], ())
    return [(parameter[n - own.start], None) if n in own else elsewhere for n in range(cut.whole)]


def _rows(view: Tensor, part: str, attention: AttentionSpec) -> Tensor:
    """Return the rows of a fused matrix that are one part of it."""
    query, kv = attention.query_dim, attention.kv_dim
    half = view.shape[0] // 2
    rows = {
        "q": slice(0, query),
        "k": slice(query, query + kv),
        "v": slice(query + kv, query + 2 * kv),
        "gate": slice(0, half),
        "up": slice(half, 2 * half),
    }
    return view[rows.get(part, slice(None))]


def _place(
    target: str, view: Tensor, part: str, cut: Cut | None, attention: AttentionSpec
) -> Place:
    shape = tuple(view.shape) if cut is None else cut.shape(view)
    arrange: Callable[[Tensor], Tensor] = _as_it_is
    if part == "by group":
        arrange = partial(_from_groups, attention=attention)
    elif part == "plus one":
        arrange = _plus_one
    elif part in ("transposed", "transposed pairs"):
        by_part = {"transposed": _transposed, "transposed pairs": _from_transposed_pairs}
        is_bias = target.split(":")[0].endswith(".bias")
        arrange = partial(by_part[part], is_bias=is_bias)
        shape = shape if is_bias else (*shape[:-2], shape[-1], shape[-2])
    return Place(target, view, shape, arrange, cut)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _plus_one(x: Tensor) -> Tensor:
    return x.float() + 1


def _transposed(x: Tensor, is_bias: bool) -> Tensor:
    return x if is_bias else x.mT


def _from_transposed_pairs(x: Tensor, is_bias: bool) -> Tensor:
    """Bring [..., in, (gate, up, gate, up, ...)] to [..., (gates, ups), in]."""
    halves = torch.cat((x[..., ::2], x[..., 1::2]), dim=-1)
    return halves if is_bias else halves.mT


def _from_groups(x: Tensor, attention: AttentionSpec) -> Tensor:
    """Bring [kv heads * (group + 2) * head_dim, ...] to queries, keys, values, each over heads."""
    num_groups = attention.num_kv_heads
    group = attention.num_heads // num_groups
    heads = x.view(num_groups, group + 2, attention.head_dim, *x.shape[1:])
    parts = heads[:, :group], heads[:, group], heads[:, group + 1]
    return torch.cat([part.reshape(-1, *x.shape[1:]) for part in parts])
