"""The sampling parameters of a step's rows, as tensors.

Rows change only when requests join or leave, so the tensors are kept from step to step as long as
the same requests are sampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.kernels.transfers import to_device
from toolkit.request import Request
from toolkit.sampling.masks import BadSequences, banned_token_ids, stop_token_ids
from toolkit.sampling_params import WHOLE_VOCABULARY, SamplingParams

__all__ = ["RowSet", "RowState", "SamplingBatch", "num_top_logprobs"]


class RowState(NamedTuple):
    """One row of logits: whose it is, and the position of the token it chooses."""

    request: Request
    position: int


@dataclass(frozen=True, slots=True)
class RowSet:
    """Some rows of a batch, in order: as numbers, and as an index tensor [len] int64."""

    numbers: list[int]
    index: Tensor
    is_all: bool

    def __bool__(self) -> bool:
        return bool(self.numbers)

    def select(self, logits: Tensor) -> Tensor:
        """Return these rows of [rows, vocab]; a copy unless they are all."""
        return logits if self.is_all else logits[self.index]

    def put(self, logits: Tensor, values: Tensor) -> Tensor:
        """Return the logits with these rows replaced, in place unless they are all."""
        if self.is_all:
            return values
        logits[self.index] = values
        return logits


class SamplingBatch:
    """Parameters of ``rows`` requests, in order, on the device of the logits.

    Every step of the chain has the set of rows that ask for it, and one value per such row in
    tensors of the set's length. Tokens by row are pairs of index tensors, as in
    ``logits[row_index, token_index]``.
    """

    def __init__(self, requests: Sequence[Request], vocab_size: int, device: torch.device) -> None:
        self.requests = tuple(requests)
        self.device = device
        self.vocab_size = vocab_size
        self._params = [request.params for request in requests]
        self._collect_masks()
        self._collect_shaping()
        self._collect_cut_offs()
        params = self._params
        self.drawing = self._rows(not p.is_greedy for p in params)
        self.greedy = self._rows(p.is_greedy for p in params)
        self.seeds = [requests[i].seed for i in self.drawing.numbers]
        self.sample_indices = [requests[i].sample_index for i in self.drawing.numbers]
        self.with_processors = [i for i, p in enumerate(params) if p.logits_processors]
        # Whether a greedy row's largest logit may no longer be the model's own: of the steps, the
        # cut-offs and the temperature leave greedy rows alone.
        self.shapes_logits = bool(
            len(self.bias)
            or self.masked
            or self.constrained
            or self.penalised
            or self.with_processors
        )
        self.scored = self._rows(p.logprobs is not None for p in params)
        self.num_top = [
            num_top_logprobs(params[i].logprobs, vocab_size) for i in self.scored.numbers
        ]

    def _collect_masks(self) -> None:
        """Logit bias, and everything that forbids tokens."""
        params, requests = self._params, self.requests
        biases = [(i, *item) for i, p in enumerate(params) for item in (p.logit_bias or {}).items()]
        self.biased = self._pairs([(row, token_id) for row, token_id, _ in biases])
        self.bias = self._floats([value for _, _, value in biases])

        self.restricted = self._rows(p.allowed_token_ids is not None for p in params)
        shape = (len(self.restricted.numbers), self.vocab_size)
        self.is_allowed = torch.zeros(shape, dtype=torch.bool, device=self.device)
        for place, row in enumerate(self.restricted.numbers):
            self.is_allowed[place, self._indices(params[row].allowed_token_ids or ())] = True

        banned = [(i, t) for i, request in enumerate(requests) for t in banned_token_ids(request)]
        self.banned = self._pairs(banned)
        self.bad_sequences = {
            i: sequences
            for i, request in enumerate(requests)
            if request.bad_word_ids and (sequences := BadSequences(request.bad_word_ids))
        }
        held = [
            (i, token_id)
            for i, request in enumerate(requests)
            if request.params.min_tokens
            for token_id in stop_token_ids(request)
        ]
        self.held_back = self._pairs(held)
        self.held_until = self._indices([params[row].min_tokens for row, _ in held])
        self.constrained = self._rows(p.structured_outputs is not None for p in params)
        self.masked = self._rows(
            p.allowed_token_ids is not None
            or bool(request.bad_word_ids)
            or p.min_tokens > 0
            # A grammar by itself always leaves a token.
            or (p.structured_outputs is not None and bool(p.logits_processors))
            for p, request in zip(params, requests, strict=True)
        )

    def _collect_shaping(self) -> None:
        """Penalties and temperature."""
        params = self._params
        self.penalised = self._rows(p.has_penalties for p in params)
        chosen = [params[i] for i in self.penalised.numbers]
        self.presence = self._floats([p.presence_penalty for p in chosen])
        self.frequency = self._floats([p.frequency_penalty for p in chosen])
        self.repetition = self._floats([p.repetition_penalty for p in chosen])
        # Greedy rows are divided by one, which changes no bit.
        temperatures = [1.0 if p.is_greedy else p.temperature for p in params]
        self.has_temperature = any(temperature != 1.0 for temperature in temperatures)
        self.temperature = self._floats(temperatures)

    def _collect_cut_offs(self) -> None:
        """Top-k, top-p and min-p of the rows that have any of them; typical-p."""
        self.cut = self._rows(map(self._is_cut, self._params))
        chosen = [self._params[i] for i in self.cut.numbers]
        # A cut-off that is off keeps everything.
        top_k = [min(p.top_k or self.vocab_size, self.vocab_size) for p in chosen]
        self.top_k = self._indices(top_k)
        self.max_top_k = max(top_k, default=0)
        self.top_p = self._floats([p.top_p for p in chosen])
        self.min_p = self._floats([p.min_p for p in chosen])
        self.has_top_p = any(p.top_p < 1.0 for p in chosen)
        self.has_min_p = any(p.min_p > 0.0 for p in chosen)
        self.typical = self._rows(not p.is_greedy and p.typical_p < 1.0 for p in self._params)
        typical_p = [self._params[i].typical_p for i in self.typical.numbers]
        self.typical_p = self._floats(typical_p)

    def masked_have_token(self, logits: Tensor) -> Tensor:
        """Return [masked rows] bool: whether the masks have left a token in [rows, vocab]."""
        return self.masked.select(logits).amax(dim=1) > -torch.inf

    def is_for(self, requests: Sequence[Request]) -> bool:
        """Whether these tensors describe exactly these requests, as they are now."""
        return len(requests) == len(self.requests) and all(
            a is b and a.params is params
            for a, b, params in zip(requests, self.requests, self._params, strict=True)
        )

    def _is_cut(self, params: SamplingParams) -> bool:
        has_top_k = 0 < params.top_k < self.vocab_size
        return not params.is_greedy and (has_top_k or params.top_p < 1.0 or params.min_p > 0.0)

    def _rows(self, chosen: Iterable[bool]) -> RowSet:
        numbers = [row for row, is_chosen in enumerate(chosen) if is_chosen]
        return RowSet(numbers, self._indices(numbers), len(numbers) == len(self.requests))

    def _pairs(self, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        return self._indices([row for row, _ in pairs]), self._indices([t for _, t in pairs])

    def _floats(self, values: Sequence[float]) -> Tensor:
        return to_device(torch.tensor(values, dtype=torch.float32), self.device)

    def _indices(self, values: Sequence[int]) -> Tensor:
        return to_device(torch.tensor(values, dtype=torch.int64), self.device)


def num_top_logprobs(asked: int | None, vocab_size: int) -> int:
    """Return how many of the most likely tokens ``logprobs`` or ``prompt_logprobs`` asks for."""
    return vocab_size if asked == WHOLE_VOCABULARY else asked or 0
