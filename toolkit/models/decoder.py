"""Run a decoder over a flat batch of tokens and a paged KV cache.

The spec says what is computed; one class serves every family. Inference only: no gradients.
Request path 6/8: from runtime.model_runner, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from toolkit.kernels import FusedLayers, Ops, PackedLinear
from toolkit.models.attention import LayerCache, Placement, ProbsRows
from toolkit.models.batch import FlatBatch
from toolkit.models.fused import Untouched, stack_parts
from toolkit.models.layers import Layer
from toolkit.models.parts import (
    GroupedLinear,
    Join,
    Linear,
    Norm,
    Part,
    Parts,
    PlainJoin,
    PreNormJoin,
    SharedEmbedding,
)
from toolkit.models.points import Tap
from toolkit.models.rope import RopeTable
from toolkit.models.sharding import Shard
from toolkit.models.spec import DecoderSpec

__all__ = ["Decoder", "num_parameters", "random_decoder"]


class Decoder(Part):
    """A decoder whose parameters are allocated and not yet filled: see load_decoder.

    One process's ``shard`` of it takes and returns the same, but for the logits: these are of its
    own part of the vocabulary. All processes must be given the same, in the same order.

    >>> from toolkit.kernels import select_ops
    >>> from toolkit.models.spec import AttentionSpec, MlpSpec, NormSpec
    >>> spec = DecoderSpec(
    ...     family="mpt", vocab_size=50, hidden_size=32, num_layers=1, max_model_len=64,
    ...     norm=NormSpec(kind="layer", eps=1e-5),
    ...     attention=AttentionSpec(
    ...         num_heads=4, num_kv_heads=4, head_dim=8, scale=8**-0.5, windows=(None,)
    ...     ),
    ...     mlp=MlpSpec(intermediate_size=64, activation="gelu", gated=False),
    ...     tied_embeddings=True,
    ... )
    >>> cpu = torch.device("cpu")
    >>> decoder = Decoder(spec, select_ops("auto", cpu), dtype=torch.float32, device=cpu)
    >>> [tuple(weight.shape) for weight in decoder.layers[0].attention.parameters()]
    [(96, 32), (32, 32)]
    """

    alibi_slopes: Tensor | None
    # All of it is in this process: no activation is in parts, and no part can be lost.
    divided_points: ClassVar[frozenset[str]] = frozenset()
    failure: ClassVar[None] = None

    def __init__(
        self,
        spec: DecoderSpec,
        ops: Ops,
        *,
        dtype: torch.dtype,
        device: torch.device,
        shard: Shard | None = None,
    ) -> None:
        super().__init__()
        width = spec.embedding_size or spec.hidden_size
        own = spec if shard is None else shard.spec(spec)
        with torch.device("meta"):  # shapes alone: nothing is initialised that a file will fill
            if shard is None:
                self.embed = nn.Embedding(spec.vocab_size, width)
            else:
                self.embed = SharedEmbedding(spec.vocab_size, width, shard)
            if spec.num_learned_positions:
                self.positions = nn.Embedding(spec.num_learned_positions, spec.hidden_size)
            if spec.embedding_norm is not None:
                self.embed_norm = Norm((spec.hidden_size,), spec.embedding_norm, ops)
            if spec.embedding_size is not None:
                self.project_in = Linear(width, spec.hidden_size, bias=False, ops=ops)
                self.project_out = Linear(spec.hidden_size, width, bias=False, ops=ops)
            self.layers = Parts(Layer(own, i, ops, shard) for i in range(spec.num_layers))
            if spec.final_norm:
                self.final_norm = Norm((spec.hidden_size,), spec.norm, ops)
            if not spec.tied_embeddings:
                self.lm_head = Linear(width, own.vocab_size, bias=False, ops=ops)
        self.requires_grad_(False)
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, Norm) and module.spec.is_wide:
                module.to(torch.float32)
        self.to_empty(device=device)
        ropes = list(dict.fromkeys(rope for rope in spec.ropes if rope is not None))
        self._rope_tables = [
            RopeTable(rope, max_model_len=spec.max_model_len, device=device) for rope in ropes
        ]
        # Which table each layer reads, found once: a RopeSpec takes long to hash.
        self._table_of_layer = [None if rope is None else ropes.index(rope) for rope in spec.ropes]
        slopes = own.attention.alibi_slopes
        slopes = None if slopes is None else torch.tensor(slopes, device=device)
        self.register_buffer("alibi_slopes", slopes, persistent=False)
        # Rounded to the model's dtype before it multiplies, as transformers does.
        self._embedding_scale = float(torch.tensor(spec.embedding_scale, dtype=dtype))
        self._final: Join = PreNormJoin(self.final_norm) if spec.final_norm else PlainJoin()
        entries = [*(layer.enter for layer in self.layers), self._final]
        self._joins = [
            layer.leave or entry for layer, entry in zip(self.layers, entries[1:], strict=True)
        ]
        self.spec = spec
        self.ops = ops
        self.shard = shard
        self._tied_head: PackedLinear | None = None
        self.fused: FusedLayers | None = None  # all layers in one call, where the kernels have it

    def pack(self, quantization: str | None = None) -> None:
        """Lay every matrix out as the kernels read it best, once the parameters are filled.

        ``quantization`` is None, "int8" or "int4"; embeddings that are looked up stay as they are.
        """
        for module in self.modules():
            if isinstance(module, Linear | GroupedLinear):
                module.pack(quantization)
        if self.spec.tied_embeddings:
            weight = self.embed.weight
            self._tied_head = self.ops.pack_linear(weight, None, quantization=quantization)
        self.fused = self._fuse()
        parts = [*self.layers.modules(), *self._rope_tables]
        if self.spec.final_norm:
            parts.append(self.final_norm)
        self._untouched = Untouched(self, parts)

    def _fuse(self) -> FusedLayers | None:
        if not self.spec.final_norm or self.shard is not None:  # it has no sums inside
            return None
        tables = [None if i is None else self._rope_tables[i] for i in self._table_of_layer]
        layers = [layer for layer in self.layers if isinstance(layer, Layer)]
        parts = stack_parts(
            self.spec, layers, tables, self.final_norm, self.alibi_slopes, self.dtype
        )
        return None if parts is None else self.ops.fuse_layers(parts)

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has changed or hooked a part since ``pack()``: see fused.Untouched."""
        return self._untouched()

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and where every input must be."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the parameters and activations are stored in."""
        return self.embed.weight.dtype

    @property
    def width(self) -> int:
        """Numbers of a hidden state, as ``forward`` returns and ``logits`` reads them."""
        return self.spec.embedding_size or self.spec.hidden_size

    @torch.no_grad()
    def forward(
        self,
        batch: FlatBatch,
        kv: Sequence[LayerCache],
        tap: Tap | None = None,
        *,
        attn_probs: Collection[int] = (),
        probs_rows: ProbsRows | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Write the batch into the caches; return what ``logits`` reads, [num_tokens, width].

        That is the hidden states after the final norm; the width is the hidden size, or the
        embedding's where the spec gives it a size of its own. ``rows`` [rows] int64 names those
        that are wanted, None for all: the last layer need not finish the others.

        ``kv[i]`` is layer i's (keys, values). Layers run in one call where ``fused`` has it, unless
        somebody has changed or hooked one, or there is a tap: that is offered every point of
        models.points in order; ``attn_probs`` names the layers whose probabilities
        it gets too (they are not computed otherwise), of all rows or of ``probs_rows``.
        """
        residual = self._embed(batch)
        if tap is not None:
            placement = self._place(batch, probs_rows)
            hidden = self._forward_shown(residual, placement, kv, tap, attn_probs)
        elif self.fused is None or not self.is_untouched:
            hidden = self._forward_by_op(residual, self._place(batch), kv)
        else:
            where = batch.block_tables, batch.query_starts, batch.context_lens
            hidden = self.fused(residual, batch.positions, batch.slots, *where, kv, rows)
            rows = None
        if rows is not None:
            hidden = hidden[rows]
        return hidden if self.spec.embedding_size is None else self.project_out(hidden)

    def _place(self, batch: FlatBatch, probs_rows: ProbsRows | None = None) -> Placement:
        angles = [table(batch.positions) for table in self._rope_tables]
        rotations = tuple(None if i is None else angles[i] for i in self._table_of_layer)
        return Placement(batch, rotations, self.alibi_slopes, probs_rows)

    def _embed(self, batch: FlatBatch) -> Tensor:
        """Return the embeddings [num_tokens, hidden], with learned positions added."""
        embedded = self.embed(batch.token_ids)
        if self.spec.embedding_size is not None:
            embedded = self.project_in(embedded)
        if self._embedding_scale != 1.0:
            embedded = embedded * self._embedding_scale
        if self.spec.embedding_norm is not None:
            embedded = self.embed_norm(embedded)
        if self.spec.num_learned_positions:
            embedded = embedded + self.positions(batch.positions + self.spec.position_offset)
        return embedded

    def _forward_by_op(
        self, residual: Tensor, placement: Placement, kv: Sequence[LayerCache]
    ) -> Tensor:
        x = self.layers[0].enter.read(residual)
        for layer, join, cache in zip(self.layers, self._joins, kv, strict=True):
            added, residual = layer(x, residual, cache, placement)
            x, residual = join.add(added, residual)
        return x

    def _forward_shown(
        self,
        residual: Tensor,
        placement: Placement,
        kv: Sequence[LayerCache],
        tap: Tap,
        attn_probs: Collection[int],
    ) -> Tensor:
        residual = tap("embed", None, residual)
        for i, (layer, join, cache) in enumerate(zip(self.layers, self._joins, kv, strict=True)):

            def show(point: str, x: Tensor, i: int = i) -> Tensor:
                return tap(point, i, x)

            residual = layer.forward_shown(
                residual, join, cache, placement, show, with_probs=i in attn_probs
            )
        return tap("final_norm", None, self._final.read(residual))

    @torch.no_grad()
    def logits(self, hidden: Tensor, tap: Tap | None = None) -> Tensor:
        """Score the vocabulary for hidden states [rows, hidden]: [rows, vocab] float32."""
        logits = self._head(hidden).float()
        if self.spec.logit_scale != 1.0:
            logits = logits * self.spec.logit_scale
        if self.spec.logit_softcap is not None:
            logits = self.spec.logit_softcap * torch.tanh(logits / self.spec.logit_softcap)
        return logits if tap is None else tap("logits", None, logits)

    @torch.no_grad()
    def read_out(self, residual: Tensor) -> Tensor:
        """Score the vocabulary for residual sums [rows, hidden] as if no layer followed."""
        return self.logits(self.read_final(residual))

    @torch.no_grad()
    def read_final(self, residual: Tensor) -> Tensor:
        """Return what ``logits`` reads of residual sums [rows, hidden]."""
        hidden = self._final.read(residual)
        return hidden if self.spec.embedding_size is None else self.project_out(hidden)

    def _head(self, hidden: Tensor) -> Tensor:
        if not self.spec.tied_embeddings:
            return self.lm_head(hidden)
        if self._tied_head is not None:
            return self._tied_head(hidden)
        return self.ops.linear(hidden, self.embed.weight)


def num_parameters(spec: DecoderSpec, ops: Ops, shard: Shard | None = None) -> int:
    """Count the parameters of a spec's decoder, or of its shard, without allocating any."""
    shapes = Decoder(spec, ops, dtype=torch.float32, device=torch.device("meta"), shard=shard)
    return sum(parameter.numel() for parameter in shapes.parameters())


def random_decoder(
    spec: DecoderSpec, *, seed: int, dtype: torch.dtype, device: torch.device, ops: Ops
) -> Decoder:
    """Build a decoder with random weights, the same on every device: for tests and simulations.

    Matrices are normal with variance 1 / in_features, so activations neither vanish nor explode
    and logits are spread by about 1; norms are 1, biases 0.
    """
    decoder = Decoder(spec, ops, dtype=dtype, device=device)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in decoder.named_parameters():
        if parameter.dim() > 1 and not name.endswith("bias"):
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values * parameter.shape[-1] ** -0.5)
        else:
            parameter.fill_(0.0 if name.endswith(("bias", "sinks")) else 1.0)
    decoder.pack()
    return decoder
