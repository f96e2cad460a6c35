"""Choose one token per row of logits.

Request path 8/8: from runtime.model_runner. The chain is fixed and can be printed
(``sampler.chain``); a step costs nothing when no row asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from toolkit.request import Logprob, Request
from toolkit.sampling.batch import RowState, SamplingBatch
from toolkit.sampling.history import TokenHistory
from toolkit.sampling.logprobs import gather_logprobs
from toolkit.sampling.processors import apply_processors
from toolkit.sampling.random import uniform
from toolkit.sampling.steps import draw, penalise, truncation_threshold

__all__ = ["Sampler", "SamplerOutput"]


@dataclass(frozen=True, slots=True)
class SamplerOutput:
    """One token per row that did not fail; errors and logprobs by row index."""

    token_ids: list[int]
    logprobs: dict[int, dict[int, Logprob]] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)


class Sampler:
    """The chain from logits to tokens.

    >>> print(Sampler(vocab_size=8, device=torch.device("cpu")).chain)
    raw processors -> logit bias -> min tokens -> repetition, presence, frequency penalties \
-> processors -> temperature -> top-k -> top-p -> min-p -> final processors -> draw
    """

    chain = (
        "raw processors -> logit bias -> min tokens -> repetition, presence, frequency penalties "
        "-> processors -> temperature -> top-k -> top-p -> min-p -> final processors -> draw"
    )

    def __init__(
        self,
        vocab_size: int,
        device: torch.device,
        *,
        decode_token: Callable[[int], str] | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.device = device
        self.history = TokenHistory(vocab_size, device)
        self._decode_token = decode_token
        self._batch: SamplingBatch | None = None

    def sample(self, logits: Tensor, rows: Sequence[RowState]) -> SamplerOutput:
        """Choose a token for each row.

        Args:
            logits: [rows, vocab] float32; may be changed in place.
            rows: Whose row it is, and the position of the token it chooses.
        """
        batch = self._batch_for([row.request for row in rows])
        raw = logits[batch.logprob_rows].clone() if batch.logprob_rows else None
        errors: dict[int, BaseException] = {}
        logits = self._process(logits, rows, batch, "raw", errors)
        logits = self._shape(logits, rows, batch)
        logits = self._process(logits, rows, batch, "default", errors)
        tokens = self._choose(logits, rows, batch, errors)
        token_ids: list[int] = tokens.tolist()
        for row, token_id in zip(rows, token_ids, strict=True):
            self.history.append(row.request, token_id)
        return SamplerOutput(token_ids, self._logprobs(raw, tokens, batch), errors)

    def _batch_for(self, requests: Sequence[Request]) -> SamplingBatch:
        if self._batch is None or not self._batch.is_for(requests):
            self._batch = SamplingBatch(requests, self.vocab_size, self.device)
        return self._batch

    def _process(
        self,
        logits: Tensor,
        rows: Sequence[RowState],
        batch: SamplingBatch,
        stage: str,
        errors: dict[int, BaseException],
    ) -> Tensor:
        """Run the rows' own processors; one that raises fails its request alone."""
        for index in batch.with_processors:
            if index in errors:
                continue
            row = rows[index]
            try:
                # A copy: a processor that keeps or edits its argument must not reach our batch.
                changed = apply_processors(logits[index].clone(), row.request, row.position, stage)
                logits[index] = changed
            except (Exception, SystemExit) as error:
                errors[index] = error
        return logits

    def _shape(self, logits: Tensor, rows: Sequence[RowState], batch: SamplingBatch) -> Tensor:
        """Apply logit bias, min tokens and penalties."""
        if batch.has_bias:
            logits.index_put_(batch.bias_index, batch.bias_value, accumulate=True)
        for index in batch.holding_back:
            request = rows[index].request
            if request.num_output_tokens < request.params.min_tokens:
                logits[index, self._stop_ids(request)] = -torch.inf
        if batch.penalised:
            counts, in_prompt = self.history.stack([rows[i].request for i in batch.penalised])
            logits[batch.penalty_rows] = penalise(
                logits[batch.penalty_rows],
                counts,
                in_prompt,
                presence=batch.presence,
                frequency=batch.frequency,
                repetition=batch.repetition,
            )
        return logits

    def _stop_ids(self, request: Request) -> list[int]:
        ids = set(request.params.stop_token_ids or ())
        if not request.params.ignore_eos:
            ids |= request.eos_token_ids
        return sorted(ids)

    def _choose(
        self,
        logits: Tensor,
        rows: Sequence[RowState],
        batch: SamplingBatch,
        errors: dict[int, BaseException],
    ) -> Tensor:
        """Return [rows] int64: the first of the largest for greedy rows, a draw for the others."""
        if batch.all_greedy:
            return self._process(logits, rows, batch, "final", errors).argmax(dim=1)
        if batch.all_random:
            logits = self._cut(logits, batch)
        else:
            logits[batch.random_rows] = self._cut(logits[batch.random_rows], batch)
        logits = self._process(logits, rows, batch, "final", errors)
        drawn = draw(
            logits if batch.all_random else logits[batch.random_rows], self._uniforms(rows, batch)
        )
        if batch.all_random:
            return drawn
        return logits.argmax(dim=1).index_copy(0, batch.random_rows, drawn)

    def _cut(self, logits: Tensor, batch: SamplingBatch) -> Tensor:
        """Apply temperature and the cut-offs to the rows that draw."""
        logits = logits / batch.temperature.unsqueeze(1)
        if not (batch.has_top_k or batch.has_top_p or batch.has_min_p):
            return logits
        threshold = truncation_threshold(
            logits,
            top_k=batch.top_k,
            max_top_k=batch.max_top_k,
            top_p=batch.top_p if batch.has_top_p else None,
            min_p=batch.min_p if batch.has_min_p else None,
        )
        return logits.masked_fill(logits < threshold, -torch.inf)

    def _uniforms(self, rows: Sequence[RowState], batch: SamplingBatch) -> Tensor:
        positions = [rows[index].position for index in batch.drawing]
        return torch.from_numpy(uniform(batch.seeds, batch.sample_indices, positions)).to(
            self.device
        )

    def _logprobs(
        self, raw: Tensor | None, tokens: Tensor, batch: SamplingBatch
    ) -> dict[int, dict[int, Logprob]]:
        if raw is None:
            return {}
        num_top = [batch.requests[index].params.logprobs or 0 for index in batch.logprob_rows]
        entries = gather_logprobs(raw, tokens[batch.logprob_rows], num_top, self._decode_token)
        return dict(zip(batch.logprob_rows, entries, strict=True))

    def __repr__(self) -> str:
        return f"Sampler({self.chain})"
