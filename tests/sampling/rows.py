"""Rows of logits and the requests they belong to, for tests of the sampler."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from toolkit.request import Request
from toolkit.sampling import RowState, Sampler, SamplerOutput
from toolkit.sampling_params import SamplingParams

CPU = torch.device("cpu")
_numbers = itertools.count()


def make_request(
    *,
    prompt: Sequence[int] = (0,),
    output: Sequence[int] = (),
    seed: int = 0,
    sample_index: int = 0,
    eos: Sequence[int] = (),
    tags: dict[str, Any] | None = None,
    **params: Any,
) -> Request:
    """A request that has sampled ``output`` already."""
    number = next(_numbers)
    request = Request(
        id=f"r{number}",
        prompt_token_ids=tuple(prompt),
        params=SamplingParams(**params),
        arrival_index=number,
        arrival_s=0.0,
        seed=seed,
        sample_index=sample_index,
        eos_token_ids=frozenset(eos),
        tags=tags or {},
        # As the engine's intake has it for words that are tokens already.
        bad_word_ids=tuple(tuple(word) for word in params.get("bad_words", ())),
    )
    request.token_ids += output
    return request


def normal(rows: int, vocab_size: int, *, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, vocab_size, generator=generator)


def sample(
    logits: Tensor,
    requests: Sequence[Request],
    *,
    positions: Sequence[int] | None = None,
    sampler: Sampler | None = None,
    decode_token: Callable[[int], str] | None = None,
) -> SamplerOutput:
    """Run the whole chain on a copy of the logits, with histories as the requests have them."""
    sampler = sampler or Sampler(logits.shape[1], CPU, decode_token=decode_token)
    for request in {request.id: request for request in requests}.values():
        sampler.history.start(request)
    positions = positions or [request.num_tokens for request in requests]
    rows = [RowState(request, p) for request, p in zip(requests, positions, strict=True)]
    return sampler.sample(logits.clone(), rows)


class Spy:
    """A processor that keeps what it sees and changes nothing."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.logits: list[Tensor] = []
        self.at: list[Any] = []

    def __call__(self, logits: Tensor, at: Any) -> None:
        self.logits.append(logits.clone())
        self.at.append(at)


def seen_at(stage: str, logits: Tensor, **params: Any) -> Tensor:
    """What one row looks like at a stage of the chain."""
    spy = Spy(stage)
    sample(logits.unsqueeze(0), [make_request(logits_processors=[spy], **params)])
    return spy.logits[0]


def kept(logits: Tensor, **params: Any) -> set[int]:
    """The tokens that a draw may still choose."""
    return set(seen_at("final", logits, **params).isfinite().nonzero().squeeze(1).tolist())
