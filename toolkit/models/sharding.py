"""Divide a decoder among processes: which part of every parameter each of them holds.

Of attention and MLP a process has a share of the heads and of the inner width: the matrix that
leads into a branch is cut by rows, the one that leads out by columns, and the processes add what
they computed (Megatron-LM, Shoeybi et al. 2019, arXiv:1909.08053). Embeddings and head are cut by
tokens of the vocabulary. Norms and a mixture's router are whole everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from toolkit.errors import InvalidConfig
from toolkit.models.spec import DecoderSpec, MlpSpec, MoeSpec

__all__ = ["DIVIDED_POINTS", "Cut", "Shard", "find_cut", "refuse_indivisible"]

# Points of models.points whose activations no process has whole.
DIVIDED_POINTS = frozenset({"q", "k", "v", "attn_probs", "head_out", "mlp_act"})


@dataclass(frozen=True, slots=True)
class Shard:
    """Whose part of a decoder this is, and how the parts are put together.

    ``sum`` adds the tensors that the processes give to it, one from each, and returns the same to
    all; it may write into its argument.
    """

    rank: int
    size: int
    sum: Callable[[Tensor], Tensor]

    def spec(self, whole: DecoderSpec) -> DecoderSpec:
        """Describe what one process computes of a decoder."""
        attention, size = whole.attention, self.size
        num_heads = attention.num_heads // size
        slopes = attention.alibi_slopes
        if slopes is not None:
            slopes = slopes[self.rank * num_heads : (self.rank + 1) * num_heads]
        moe = whole.moe
        if moe is not None:
            moe = replace(moe, intermediate_size=moe.intermediate_size // size)
        return replace(
            whole,
            vocab_size=-(-whole.vocab_size // size),  # the last processes may have fewer
            attention=replace(
                attention,
                num_heads=num_heads,
                num_kv_heads=max(1, attention.num_kv_heads // size),
                alibi_slopes=slopes,
            ),
            mlp=replace(whole.mlp, intermediate_size=whole.mlp.intermediate_size // size),
            moe=moe,
        )

    def share(self, whole: int) -> range:
        """Return this process's part of so many heads, columns or rows."""
        count = max(1, whole // self.size)
        # Fewer heads than processes: neighbours have the same one.
        first = self.rank * whole // self.size
        return range(first, first + count)

    def tokens(self, vocab_size: int) -> range:
        """Return the token ids whose embeddings and logits this process has."""
        count = -(-vocab_size // self.size)
        first = min(self.rank * count, vocab_size)
        return range(first, min(first + count, vocab_size))


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a tensor: some ranges along one dimension, which has ``whole`` entries in all."""

    dim: int  # counts from the end
    whole: int
    ranges: tuple[range, ...]

    def fill(self, own: Tensor, whole: Tensor) -> None:
        """Copy the part of a whole tensor into a process's own; what it has beyond is zero."""
        start = 0
        for part in self.ranges:
            own.narrow(self.dim, start, len(part)).copy_(
                whole.narrow(self.dim, part.start, len(part))
            )
            start += len(part)
        own.narrow(self.dim, start, own.shape[self.dim] - start).zero_()

    def shape(self, own: Tensor) -> tuple[int, ...]:
        """Return the shape of the whole tensor."""
        shape = list(own.shape)
        shape[self.dim] = self.whole
        return tuple(shape)


def refuse_indivisible(spec: DecoderSpec, size: int) -> None:
    """Raise InvalidConfig, naming the sizes there are, where a decoder has no ``size`` parts."""
    obstacle = _obstacle(spec, size)
    if obstacle is None:
        return
    fitting = [n for n in range(2, spec.attention.num_heads + 1) if _obstacle(spec, n) is None]
    *others, last = map(str, [1, *fitting])
    advice = f"choose {', '.join(others)} or {last}" if fitting else "leave it at 1"
    raise InvalidConfig(f"tensor_parallel={size}: this model has {obstacle}; {advice}")


def _obstacle(spec: DecoderSpec, size: int) -> str | None:
    attention = spec.attention
    heads, kv_heads = attention.num_heads, attention.num_kv_heads
    if heads % size:
        return f"{heads} attention heads, which are no multiple of it"
    if kv_heads % size and size % kv_heads:
        return f"{kv_heads} key and value heads, neither a multiple nor a divisor of it"
    for width in {spec.mlp_of(layer).intermediate_size for layer in range(spec.num_layers)}:
        if width % size:
            return f"MLPs of width {width}, which is no multiple of it"
    return None


def find_cut(path: str, part: str, spec: DecoderSpec, shard: Shard) -> Cut | None:
    """Return the part of a parameter that a process holds; None where it holds all of it.

    Args:
        path: The parameter's name in a Decoder, as "layers.0.attention.qkv.weight".
        part: Which rows of it are meant: q, k, v, gate, up; anything else is all of them.
        spec: Of the whole decoder.
        shard: Whose part.
    """
    owner, _, kind = path.rpartition(".")
    rows = -1 if kind == "bias" else -2
    name = owner.rpartition(".")[2]
    if name in ("embed", "lm_head"):
        return Cut(rows, spec.vocab_size, (shard.tokens(spec.vocab_size),))
    if name == "qkv":
        return _stacked(rows, _heads(spec, shard), part)
    if kind == "sinks":
        return Cut(-1, spec.attention.num_heads, (shard.share(spec.attention.num_heads),))
    if name in ("q_norm", "k_norm"):
        return _head_norm(name[0], spec, shard)
    if not owner.startswith("layers."):
        return None
    mlp = spec.mlp_of(int(owner.split(".")[1]))
    if name in ("gate_up", "up"):
        return _stacked(rows, _inner(mlp, name, shard), part)
    if name in ("out", "down"):
        if kind == "bias":  # added once: by the first
            return None if shard.rank == 0 else Cut(-1, spec.hidden_size, ())
        inner = spec.attention.query_dim if name == "out" else mlp.intermediate_size
        return Cut(-1, inner, (shard.share(inner),))
    return None


def _heads(spec: DecoderSpec, shard: Shard) -> dict[str, Cut]:
    """Return the rows of query, key and value, each in its own matrix."""
    attention = spec.attention
    counts = {"q": attention.num_heads, "k": attention.num_kv_heads, "v": attention.num_kv_heads}
    return {
        part: _scaled(shard.share(count), count, attention.head_dim)
        for part, count in counts.items()
    }


def _inner(mlp: MlpSpec | MoeSpec, name: str, shard: Shard) -> dict[str, Cut]:
    width = mlp.intermediate_size
    parts = ("gate", "up") if name == "gate_up" else ("up",)
    return {part: Cut(-2, width, (shard.share(width),)) for part in parts}


def _scaled(heads: range, count: int, head_dim: int) -> Cut:
    rows = range(heads.start * head_dim, heads.stop * head_dim)
    return Cut(-2, count * head_dim, (rows,))


def _stacked(dim: int, parts: dict[str, Cut], part: str) -> Cut:
    """Return one part's rows, or those of all parts in the matrix where they lie stacked."""
    if part in parts:
        return replace(parts[part], dim=dim)
    ranges, start = [], 0
    for cut in parts.values():
        ranges += [range(start + r.start, start + r.stop) for r in cut.ranges]
        start += cut.whole
    return Cut(dim, start, tuple(ranges))


def _head_norm(which: str, spec: DecoderSpec, shard: Shard) -> Cut | None:
    """Return the part of a norm's weight over query (q) or key (k) heads."""
    attention = spec.attention
    if attention.qk_norm_over == "head":
        return None
    count = attention.num_heads if which == "q" else attention.num_kv_heads
    heads = shard.share(count)
    if attention.qk_norm_over == "own head":
        return Cut(-2, count, (heads,))
    return replace(_scaled(heads, count, attention.head_dim), dim=-1)
