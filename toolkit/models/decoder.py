"""Run a decoder over a flat batch of tokens and a paged KV cache.

The spec says what is computed; one class serves every family. Inference only: no gradients.
Request path 6/8: from runtime.model_runner, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from toolkit.kernels import Ops
from toolkit.models.batch import FlatBatch
from toolkit.models.layers import Layer, LayerCache, Linear, Norm, Placement
from toolkit.models.points import Tap
from toolkit.models.rope import RopeTable
from toolkit.models.spec import DecoderSpec

__all__ = ["Decoder", "num_parameters", "random_decoder"]


class Decoder(nn.Module):
    """A decoder whose parameters are allocated and not yet filled: see load_decoder.

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

    def __init__(
        self, spec: DecoderSpec, ops: Ops, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # shapes alone: nothing is initialised that a file will fill
            self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
            self.layers = nn.ModuleList(Layer(spec, i, ops) for i in range(spec.num_layers))
            self.final_norm = Norm(spec.hidden_size, spec.norm, ops)
            if not spec.tied_embeddings:
                self.lm_head = Linear(spec.hidden_size, spec.vocab_size, bias=False, ops=ops)
        self.requires_grad_(False)
        self.to(dtype).to_empty(device=device)
        self.rope = None
        if spec.rope is not None:
            self.rope = RopeTable(spec.rope, max_model_len=spec.max_model_len, device=device)
        slopes = spec.attention.alibi_slopes
        slopes = None if slopes is None else torch.tensor(slopes, device=device)
        self.register_buffer("alibi_slopes", slopes, persistent=False)
        self.spec = spec
        self.ops = ops

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and where every input must be."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the parameters and activations are stored in."""
        return self.embed.weight.dtype

    @torch.no_grad()
    def forward(
        self,
        batch: FlatBatch,
        kv: Sequence[LayerCache],
        tap: Tap | None = None,
        *,
        attn_probs: Collection[int] = (),
    ) -> Tensor:
        """Write the batch into the caches; return hidden states [num_tokens, hidden], normed.

        ``kv[i]`` is layer i's (keys, values). With a tap the unfused path runs, which offers it
        every point of models.points in order; ``attn_probs`` names the layers whose probabilities
        it gets too (they are not computed otherwise).
        """
        rotation = None if self.rope is None else self.rope(batch.positions)
        placement = Placement(batch, rotation, self.alibi_slopes)
        residual = self.embed(batch.token_ids)
        if tap is None:
            return self._forward_fused(residual, placement, kv)
        return self._forward_shown(residual, placement, kv, tap, attn_probs)

    def _forward_fused(
        self, residual: Tensor, placement: Placement, kv: Sequence[LayerCache]
    ) -> Tensor:
        norms = [layer.attn_norm for layer in self.layers] + [self.final_norm]
        normed = norms[0](residual)
        for layer, next_norm, cache in zip(self.layers, norms[1:], kv, strict=True):
            mlp_out, residual = layer(normed, residual, cache, placement)
            normed, residual = next_norm.add(mlp_out, residual)
        return normed

    def _forward_shown(
        self,
        residual: Tensor,
        placement: Placement,
        kv: Sequence[LayerCache],
        tap: Tap,
        attn_probs: Collection[int],
    ) -> Tensor:
        residual = tap("embed", None, residual)
        for i, (layer, cache) in enumerate(zip(self.layers, kv, strict=True)):

            def show(point: str, x: Tensor, i: int = i) -> Tensor:
                return tap(point, i, x)

            residual = layer.forward_shown(
                residual, cache, placement, show, with_probs=i in attn_probs
            )
        return tap("final_norm", None, self.final_norm(residual))

    @torch.no_grad()
    def logits(self, hidden: Tensor, tap: Tap | None = None) -> Tensor:
        """Score the vocabulary for hidden states [rows, hidden]: [rows, vocab] float32."""
        head = self.embed if self.spec.tied_embeddings else self.lm_head
        logits = self.ops.linear(hidden, head.weight).float() * self.spec.logit_scale
        return logits if tap is None else tap("logits", None, logits)


def num_parameters(spec: DecoderSpec, ops: Ops) -> int:
    """Count the parameters of a spec's decoder without allocating any."""
    shapes = Decoder(spec, ops, dtype=torch.float32, device=torch.device("meta"))
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
        if parameter.dim() == 2:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values * parameter.shape[1] ** -0.5)
        else:
            parameter.fill_(0.0 if name.endswith(".bias") else 1.0)
    return decoder
