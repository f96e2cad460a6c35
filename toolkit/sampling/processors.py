"""A request's own logits processors: plain callables, at three places of the chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import InvalidRequest
from toolkit.request import Request

__all__ = ["STAGES", "ProcessorContext", "apply_processors"]

STAGES = ("raw", "default", "final")


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
