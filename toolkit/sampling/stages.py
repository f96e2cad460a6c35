"""Run the sampler on one row of logits and show what each step makes of it.

The steps are the sampler's own, run by the sampler itself: what is shown is what an engine does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import InvalidParameter
from toolkit.kernels import Ops
from toolkit.request import Request
from toolkit.sampling.batch import RowState
from toolkit.sampling.grammar.state import Accepted
from toolkit.sampling.sampler import Sampler
from toolkit.sampling.trace import Stages, Trace
from toolkit.sampling_params import SamplingParams

__all__ = ["row_stages", "sampling_stages"]


def sampling_stages(
    logits: Tensor,
    params: SamplingParams,
    *,
    prompt_token_ids: Sequence[int] = (),
    output_token_ids: Sequence[int] = (),
    seed: int | None = None,
    sample_index: int = 0,
    position: int | None = None,
    eos_token_ids: Collection[int] = (),
    bad_word_ids: Sequence[Sequence[int]] = (),
    forbidden: Tensor | None = None,
    tags: dict[str, Any] | None = None,
    ops: Ops | None = None,
) -> Stages:
    """Run the sampler on one row of logits and return what each step made of it.

    >>> logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    >>> stages = sampling_stages(logits, SamplingParams(top_k=2), seed=7)
    >>> [(stage.name, stage.kept) for stage in stages.stages if stage.changed]
    [('top-k', 2)]

    Args:
        logits: [vocab], the model's own; left as they are.
        params: How the token is chosen; ``n``, ``stop`` and what else does not change the logits
            have no effect.
        prompt_token_ids: What penalties and processors see as the prompt.
        output_token_ids: What they see as the output so far.
        seed: Of the draw; that of ``params`` by default, 0 where that has none.
        sample_index: Of the draw.
        position: Of the token that is chosen; right behind the tokens given by default. A larger
            one stands for output tokens that are not given.
        eos_token_ids: Tokens that ``min_tokens`` holds back.
        bad_word_ids: ``params.bad_words`` as token ids, where they are texts.
        forbidden: [vocab] bool, what a grammar forbids here; without it ``structured_outputs``
            forbids nothing.
        tags: What processors see.
        ops: The kernels that choose; the reference by default.

    Raises:
        InvalidParameter: ``logits`` is no row, ``position`` lies among the tokens given, or a bad
            word is a text whose tokens are not given.
        InvalidRequest: no token is left. What a processor raises comes as it is.
        ModelError: a logit is no finite number.
    """
    if logits.ndim != 1 or not len(logits):
        raise InvalidParameter(
            f"logits must be one row [vocab], not of shape {tuple(logits.shape)}", param="logits"
        )
    words = [word for word in bad_word_ids or params.bad_words or () if not isinstance(word, str)]
    if len(words) < len(bad_word_ids or params.bad_words or ()):
        raise InvalidParameter(
            "bad_words are texts here: give their tokens as bad_word_ids", param="bad_words"
        )
    if forbidden is None:
        params = replace(params, structured_outputs=None)
    request = Request(
        id="shown",
        prompt_token_ids=tuple(prompt_token_ids),
        params=params,
        arrival_index=0,
        arrival_s=0.0,
        seed=(params.seed or 0) if seed is None else seed,
        sample_index=sample_index,
        eos_token_ids=frozenset(eos_token_ids),
        bad_word_ids=tuple(tuple(word) for word in words),
        tags=tags or {},
    )
    request.token_ids += output_token_ids
    if position is not None and position < request.num_tokens:
        raise InvalidParameter(
            f"position={position} lies among the {request.num_tokens} tokens given",
            param="position",
        )
    return row_stages(logits, request, position=position, forbidden=forbidden, ops=ops)


def row_stages(
    logits: Tensor,
    request: Request,
    *,
    position: int | None = None,
    forbidden: Tensor | None = None,
    ops: Ops | None = None,
) -> Stages:
    """Do the same for a request as it is; see ``sampling_stages``.

    Raises:
        InvalidRequest: no token is left. What a processor raises comes as it is.
        ModelError: a logit is no finite number.
    """
    row = logits.detach().to(torch.float32, copy=True).unsqueeze(0)  # [1, vocab]
    grammars: Any = _FixedMask(forbidden)
    sampler = Sampler(len(logits), logits.device, ops=ops, grammars=grammars)
    sampler.history.start(request)
    trace = Trace(row, [request], [0])
    place = RowState(request, request.num_tokens if position is None else position)
    output = sampler.sample(row, [place], trace=trace)
    if 0 in output.errors:
        raise output.errors[0]
    return trace.seen(0, output.token_ids[0], position=place.position, ops=sampler.ops)


class _FixedMask:
    """Stands in for the grammars of a request: forbids what it is told, whatever comes."""

    def __init__(self, forbidden: Tensor | None) -> None:
        self._forbidden = forbidden

    def forbidden(
        self, requests: Sequence[Request], num_outputs: Sequence[int]
    ) -> tuple[Tensor, dict[int, BaseException]]:
        """Return the mask [1, vocab] bool, and no error."""
        assert self._forbidden is not None  # else the request would not be constrained
        return self._forbidden.cpu().unsqueeze(0), {}

    def accept(self, requests: Sequence[Request], token_ids: Sequence[int]) -> list[Accepted]:
        """Keep the tokens."""
        return [Accepted(token_id, False) for token_id in token_ids]
