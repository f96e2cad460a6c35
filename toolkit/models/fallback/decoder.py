"""Run an architecture that no spec describes: transformers' own code, our paged attention.

``TransformersDecoder`` looks to runtime like models.decoder.Decoder. Lost are fused kernels and the
points of models.points.
Request path 6/8: from runtime.model_runner, to models.fallback.attention.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from toolkit.errors import InvalidRequest
from toolkit.kernels import Ops
from toolkit.models.attention import LayerCache
from toolkit.models.batch import FlatBatch
from toolkit.models.fallback.attention import PagedStep, running
from toolkit.models.fallback.refusal import refusal
from toolkit.models.fallback.spec import TransformersSpec
from toolkit.models.points import Tap

__all__ = ["TransformersDecoder"]


class TransformersDecoder(nn.Module):
    """A causal language model of transformers, loaded with ``PAGED`` attention, cut in two.

    ``body`` turns tokens into hidden states. ``head`` is the same model, sharing its parameters,
    with what it is given as hidden states in the body's place: so scales, caps and divisions of
    logits are computed by the model's own code, and only for the rows that are wanted.
    """

    failure: ClassVar[None] = None  # all of it is in this process: no part can be lost

    def __init__(
        self,
        model: PreTrainedModel,
        spec: TransformersSpec,
        ops: Ops,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        body = model.get_decoder()
        if not isinstance(body, PreTrainedModel):  # some call the matrix of the logits so
            body = model.base_model
        path = next((name for name, module in model.named_modules() if module is body), "")
        if not path:
            raise refusal(spec.family, "its code does not part the decoder from the logits")
        self.body = body
        self.head = _replaced(model, path.split("."), _HiddenStates())
        self.spec = spec
        self.ops = ops
        self.dtype = dtype
        self.device = device

    def pack(self, quantization: str | None = None) -> None:
        """Lay the matrices of plain linear modules out as the kernels read them best.

        Modules that their model's code treats in a way of its own (a subclass, a matrix that is
        also an embedding's) stay as they are.
        """
        embeddings = {
            id(module.weight) for module in self.body.modules() if isinstance(module, nn.Embedding)
        }
        modules = {*self.body.modules(), *self.head.modules()}  # they share some
        for module in modules:
            if type(module) is nn.Linear:
                _pack(module, self.ops, quantization, keep=id(module.weight) in embeddings)

    @property
    def width(self) -> int:
        """Numbers of a hidden state, as ``forward`` returns and ``logits`` reads them."""
        return int(self.body.config.hidden_size)

    @torch.no_grad()
    def forward(
        self,
        batch: FlatBatch,
        kv: Sequence[LayerCache],
        tap: Tap | None = None,
        *,
        attn_probs: Collection[int] = (),
        rows: Tensor | None = None,
    ) -> Tensor:
        """Write the batch into the caches; return hidden states [num_tokens, hidden], normed.

        ``rows`` [rows] int64 names those that are wanted, None for all.

        Raises InvalidRequest if a tap or attention probabilities are asked for: there are none.
        """
        if attn_probs:
            raise self._no_points()
        self._require_no_tap(tap)
        with running(PagedStep(batch, kv, self.ops, self.spec.windows)):
            output = self.body(
                input_ids=batch.token_ids.unsqueeze(0),
                position_ids=batch.positions.unsqueeze(0),
                use_cache=False,
            )
        hidden = output[0].squeeze(0)
        return hidden if rows is None else hidden[rows]

    @torch.no_grad()
    def logits(self, hidden: Tensor, tap: Tap | None = None) -> Tensor:
        """Score the vocabulary for hidden states [rows, hidden]: [rows, vocab] float32."""
        self._require_no_tap(tap)
        output = self.head(inputs_embeds=hidden.unsqueeze(0), use_cache=False)
        return output[0].squeeze(0).float()

    def _require_no_tap(self, tap: Tap | None) -> None:
        if tap is not None:
            raise self._no_points()

    def _no_points(self) -> InvalidRequest:
        return InvalidRequest(
            f"{self.spec.family} runs in transformers' own code, which shows no activations: "
            "hooks need a model that one of the toolkit's families describes",
            param="hooks",
        )


@dataclass
class _Output(MoeModelOutputWithPast):
    """All that a model may look for in its decoder's output before it computes logits."""

    cross_attentions: None = None


class _HiddenStates(nn.Module):
    """Stand where a decoder stood, and return the hidden states that came as embeddings."""

    def forward(self, input_ids: None = None, *, inputs_embeds: Tensor, **_: Any) -> _Output:
        return _Output(last_hidden_state=inputs_embeds)


def _replaced(module: nn.Module, path: list[str], leaf: nn.Module) -> nn.Module:
    """Copy a module with ``leaf`` at ``path``; all other submodules and parameters are shared."""
    if not path:
        return leaf
    clone = copy.copy(module)
    inner = _replaced(module.get_submodule(path[0]), path[1:], leaf)
    clone._modules = {**module._modules, path[0]: inner}
    return clone


def _pack(module: nn.Linear, ops: Ops, quantization: str | None, *, keep: bool) -> None:
    """Let a linear module compute with a packed weight; its own goes unless it is to be kept."""
    packed = ops.pack_linear(module.weight, module.bias, quantization=quantization)
    if packed is None:
        return

    def forward(x: Tensor) -> Tensor:
        return packed(x.flatten(0, -2)).unflatten(0, x.shape[:-1])

    module.forward = forward
    if not keep:
        module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
