"""The sampling parameters of a step's rows, as tensors.

Rows change only when requests join or leave, so the tensors are kept from step to step as long as
the same requests are sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.request import Request

__all__ = ["RowState", "SamplingBatch"]


@dataclass(frozen=True, slots=True)
class RowState:
    """One row of logits: whose it is, and the position of the token it chooses."""

    request: Request
    position: int


class SamplingBatch:
    """Parameters of ``rows`` requests, in order, on the device of the logits.

    Shapes: every tensor is [rows] unless said otherwise. ``random_rows`` lists the rows that draw;
    the others are greedy.
    """

    def __init__(self, requests: Sequence[Request], vocab_size: int, device: torch.device) -> None:
        self.requests = tuple(requests)
        self.device = device
        self.vocab_size = vocab_size
        params = [request.params for request in requests]
        drawing = [i for i, p in enumerate(params) if not p.is_greedy]
        self.all_greedy = not drawing
        self.all_random = len(drawing) == len(params)
        self.random_rows = self._indices(drawing)
        self.temperature = self._floats([params[i].temperature for i in drawing])
        # A cut-off that is off keeps everything.
        top_k = [min(params[i].top_k or vocab_size, vocab_size) for i in drawing]
        self.top_k = self._indices(top_k)
        self.max_top_k = max(top_k, default=0)
        self.top_p = self._floats([params[i].top_p for i in drawing])
        self.min_p = self._floats([params[i].min_p for i in drawing])
        self.has_top_k = any(0 < params[i].top_k < vocab_size for i in drawing)
        self.has_top_p = any(params[i].top_p < 1.0 for i in drawing)
        self.has_min_p = any(params[i].min_p > 0.0 for i in drawing)
        self.seeds = [requests[i].seed for i in drawing]
        self.sample_indices = [requests[i].sample_index for i in drawing]
        self.drawing = drawing

        penalised = [i for i, p in enumerate(params) if p.has_penalties]
        self.penalty_rows = self._indices(penalised)
        self.penalised = penalised
        self.presence = self._floats([params[i].presence_penalty for i in penalised])
        self.frequency = self._floats([params[i].frequency_penalty for i in penalised])
        self.repetition = self._floats([params[i].repetition_penalty for i in penalised])

        biases = [(i, *item) for i, p in enumerate(params) for item in (p.logit_bias or {}).items()]
        self.has_bias = bool(biases)
        self.bias_index = (
            self._indices([bias[0] for bias in biases]),
            self._indices([bias[1] for bias in biases]),
        )
        self.bias_value = self._floats([bias[2] for bias in biases])

        self.holding_back = [i for i, p in enumerate(params) if p.min_tokens]
        self.with_processors = [i for i, p in enumerate(params) if p.logits_processors]
        self.logprob_rows = [i for i, p in enumerate(params) if p.logprobs is not None]
        self.num_top_logprobs = max((p.logprobs or 0 for p in params), default=0)

    def is_for(self, requests: Sequence[Request]) -> bool:
        """Whether these tensors describe exactly these requests."""
        return len(requests) == len(self.requests) and all(
            a is b for a, b in zip(requests, self.requests, strict=True)
        )

    def _floats(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def _indices(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)
