"""Declare what a decoder computes: numbers and choices, no tensors.

A family (models.families) turns a Hugging Face config into a DecoderSpec; models.decoder runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from toolkit.errors import InvalidConfig

__all__ = [
    "ActivationName",
    "AttentionSpec",
    "DecoderSpec",
    "KVShape",
    "MlpSpec",
    "MoeSpec",
    "NormSpec",
    "RopeSpec",
]

ActivationName: TypeAlias = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one token takes in the KV cache: a key and a value per layer and head."""

    num_layers: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSpec:
    """A normalisation with a weight.

    ``is_wide`` keeps the weight in float32 and rounds once, after it has multiplied (Gemma, OLMo 2,
    gpt-oss); otherwise the weight has the model's dtype and multiplies what was rounded (Llama).
    """

    kind: Literal["rms", "layer"]
    eps: float
    has_bias: bool = False  # of LayerNorm alone
    is_wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSpec:
    """Rotary positions: the angle of pair i at position p is p * inv_freq[i]."""

    kind: str  # transformers' rope_type
    inv_freq: tuple[float, ...] = field(repr=False)  # radians per position, one per rotated pair
    magnitude: float = 1.0  # cos and sin are multiplied by it (yarn, longrope)
    interleaved: bool = False  # pairs are (2i, 2i + 1), not (i, i + rotary_dim / 2)

    @property
    def rotary_dim(self) -> int:
        """Leading dimensions of each head that are rotated."""
        return 2 * len(self.inv_freq)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Shapes and scores of every layer's attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float  # multiplies query . key
    windows: tuple[int | None, ...] = field(repr=False)  # per layer: positions seen, own included
    divides_scale_by_layer: bool = False  # layer i's scale is scale / (i + 1) (GPT-2's option)
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: NormSpec | None = None  # of query and key, before rotary
    # What one norm of query (or key) spans: a head, all heads with one weight; a head, each with a
    # weight of its own; or all heads together.
    qk_norm_over: Literal["head", "own head", "all heads"] = "head"
    clip_qkv: float | None = None  # bounds query, key and value to [-clip_qkv, clip_qkv]
    softcap: float | None = None  # score = softcap * tanh(score / softcap)
    alibi_slopes: tuple[float, ...] | None = field(default=None, repr=False)  # one per head
    has_sinks: bool = False  # a learned score per head that takes probability and has no value

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InvalidConfig(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.alibi_slopes is not None and len(self.alibi_slopes) != self.num_heads:
            raise InvalidConfig(f"{len(self.alibi_slopes)} ALiBi slopes for {self.num_heads} heads")

    @property
    def query_dim(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key heads together, or of all value heads."""
        return self.num_kv_heads * self.head_dim

    def scale_of(self, layer: int) -> float:
        """Return what multiplies query . key in one layer."""
        return self.scale / (layer + 1) if self.divides_scale_by_layer else self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpSpec:
    """The feed-forward part: down(act(gate) * up) when gated, else down(act(up))."""

    intermediate_size: int
    activation: ActivationName
    gated: bool
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeSpec:
    """A mixture of gated MLPs: each token's router picks ``num_active`` experts and weighs them.

    The weights are a softmax over all experts, divided by the sum of the picked ones if
    ``normalised``. With ``swiglu_limit`` an expert computes (up + 1) * gate * sigmoid(alpha * gate)
    on clamped values (gpt-oss) in place of act(gate) * up. Shazeer et al. 2017, arXiv:1701.06538.
    """

    num_experts: int
    num_active: int
    intermediate_size: int
    activation: ActivationName = "silu"
    normalised: bool = True
    bias: bool = False  # of the router and of the experts
    swiglu_limit: float | None = None
    swiglu_alpha: float = 1.702


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A decoder of ``num_layers`` layers, each an attention and an MLP around a residual sum.

    ``norms`` says where a branch is normalised: before it ("pre": x += f(norm(x))), after it
    ("post": x += norm(f(x))), on both sides ("sandwich"), or after the addition ("sum":
    x = norm(x + f(x))). In a "parallel" layer attention and MLP read the same x, each through its
    norm or both through one ("parallel, one norm").

    >>> spec = DecoderSpec(
    ...     family="llama", vocab_size=64, hidden_size=32, num_layers=1, max_model_len=128,
    ...     norm=NormSpec(kind="rms", eps=1e-6),
    ...     attention=AttentionSpec(
    ...         num_heads=4, num_kv_heads=2, head_dim=8, scale=8**-0.5, windows=(None,)
    ...     ),
    ...     mlp=MlpSpec(intermediate_size=48, activation="silu", gated=True),
    ...     rope=RopeSpec(kind="default", inv_freq=(1.0, 0.1, 0.01, 0.001)),
    ... )
    >>> spec.attention.kv_dim, spec.rope.rotary_dim
    (16, 8)
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    max_model_len: int  # longest sequence in tokens; rope tables hold this many positions
    norm: NormSpec
    attention: AttentionSpec
    mlp: MlpSpec
    moe: MoeSpec | None = None  # takes the MLP's place in the layers of moe_layers
    moe_layers: tuple[int, ...] = ()
    layer: Literal["serial", "parallel", "parallel, one norm"] = "serial"
    norms: Literal["pre", "post", "sandwich", "sum"] = "pre"
    rope: RopeSpec | None = None
    layer_ropes: tuple[RopeSpec | None, ...] | None = None  # where layers differ, in place of rope
    num_learned_positions: int = 0  # rows of a table that is added to the embeddings
    position_offset: int = 0  # row of position 0 in that table
    embedding_size: int | None = None  # where not hidden_size: a matrix leads in, and one out
    embedding_scale: float = 1.0  # multiplies the embeddings
    embedding_norm: NormSpec | None = None  # of the embeddings
    residual_scale: float = 1.0  # multiplies what a branch adds to the residual sum
    final_norm: bool = True
    tied_embeddings: bool = False  # the logits read the embedding matrix
    logit_scale: float = 1.0  # multiplies the logits
    logit_softcap: float | None = None  # logit = softcap * tanh(logit / softcap)

    def __post_init__(self) -> None:
        for name, per_layer in (
            ("windows", self.attention.windows),
            ("layer_ropes", self.layer_ropes),
        ):
            if per_layer is not None and len(per_layer) != self.num_layers:
                raise InvalidConfig(f"{len(per_layer)} {name} for {self.num_layers} layers")
        for rope in self.ropes:
            if rope is not None and rope.rotary_dim > self.attention.head_dim:
                raise InvalidConfig(
                    f"rotary_dim={rope.rotary_dim} exceeds head_dim={self.attention.head_dim}"
                )

    @property
    def ropes(self) -> tuple[RopeSpec | None, ...]:
        """The rotary positions of each layer."""
        return self.layer_ropes or (self.rope,) * self.num_layers

    def mlp_of(self, layer: int) -> MlpSpec | MoeSpec:
        """Return the feed-forward part of one layer."""
        if self.moe is not None and layer in self.moe_layers:
            return self.moe
        return self.mlp

    @property
    def kv_shape(self) -> KVShape:
        """What one token takes in the KV cache."""
        return KVShape(self.num_layers, self.attention.num_kv_heads, self.attention.head_dim)
