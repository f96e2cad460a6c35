"""A request's own logits processors: plain callables, at three places of the chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import InvalidParameter, InvalidRequest
from toolkit.request import Request

__all__ = ["AdaptedProcessor", "ProcessorContext", "adapt", "apply_processors"]


@dataclass(frozen=True, slots=True)
class ProcessorContext:
    """What a processor is told beside the logits: ``f(logits, at)``."""

    request_id: str
    sample_index: int
    prompt_token_ids: tuple[int, ...]
    output_token_ids: tuple[int, ...]
    position: int
    tags: dict[str, Any]


def apply_processors(logits: Tensor, request: Request, position: int, stage: str) -> Tensor:
    """Return one row after the request's processors of a stage.

    Args:
        logits: [vocab] float32.
        request: Whose processors run.
        position: Of the token that is being chosen.
        stage: "raw", "default" or "final"; a processor names its own in ``f.stage``.

    Raises:
        InvalidRequest: a processor returned something else than a tensor of the same shape with
            at least one finite logit.
    """
    at = ProcessorContext(
        request_id=request.id,
        sample_index=request.sample_index,
        prompt_token_ids=request.prompt_token_ids,
        output_token_ids=tuple(request.output_token_ids),
        position=position,
        tags=request.tags,
    )
    for processor in request.params.logits_processors or ():
        if getattr(processor, "stage", "default") != stage:
            continue
        changed = processor(logits, at)
        changed = logits if changed is None else changed
        if isinstance(changed, Tensor) and not changed.is_floating_point():
            raise InvalidRequest(
                f"logits processor {processor!r} returned {changed.dtype}; expected logits in a "
                "floating dtype, or None",
                param="logits_processors",
            )
        if not isinstance(changed, Tensor) or changed.shape != logits.shape:
            got = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise InvalidRequest(
                f"logits processor {processor!r} returned {got}; "
                f"expected a tensor of shape {tuple(logits.shape)} or None",
                param="logits_processors",
            )
        forced = changed == torch.inf
        if bool(forced.any()):  # +inf forces its token, which no softmax understands
            changed = torch.where(forced, 0.0, -torch.inf)
        if bool(changed.isnan().any()) or not bool(changed.isfinite().any()):
            raise InvalidRequest(
                f"logits processor {processor!r} left no token to choose (all -inf, or a NaN)",
                param="logits_processors",
            )
        logits = changed
    return logits


def adapt(
    processor: Callable[[Tensor, Tensor], Tensor], *, stage: str = "default"
) -> AdaptedProcessor:
    """Make one of our processors of a Hugging Face one, which takes ``(input_ids, scores)``.

    >>> from transformers import SuppressTokensLogitsProcessor
    >>> from toolkit import SamplingParams, adapt
    >>> silence = adapt(SuppressTokensLogitsProcessor([5, 9], device="cpu"))
    >>> params = SamplingParams(logits_processors=[silence])

    Args:
        processor: A ``LogitsProcessor``, a ``LogitsProcessorList``, or any such callable.
        stage: Its place in the chain: "raw", "default" or "final".

    Raises:
        InvalidParameter: ``processor`` cannot be called.
    """
    if not callable(processor):
        raise InvalidParameter(
            f"adapt takes a callable f(input_ids, scores), not {processor!r:.80}",
            param="logits_processors",
        )
    return AdaptedProcessor(processor, stage)


class AdaptedProcessor:
    """Calls a Hugging Face processor with one sequence: prompt and output, and its scores."""

    def __init__(self, processor: Callable[[Tensor, Tensor], Tensor], stage: str) -> None:
        self.processor = processor
        self.stage = stage

    def __call__(self, logits: Tensor, at: ProcessorContext) -> Tensor:
        """Return one row's scores [vocab] after the processor."""
        seen = [at.prompt_token_ids + at.output_token_ids]
        input_ids = torch.tensor(seen, dtype=torch.int64, device=logits.device)  # [1, num_tokens]
        scores = self.processor(input_ids, logits.unsqueeze(0))
        return scores.squeeze(0) if isinstance(scores, Tensor) else scores  # which is refused later

    def __repr__(self) -> str:
        stage = "" if self.stage == "default" else f", stage={self.stage!r}"
        return f"adapt({self.processor!r}{stage})"
