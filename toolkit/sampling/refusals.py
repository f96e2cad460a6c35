"""Rows of a batch that no token can be chosen in: each fails its own request, the others go on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.errors import InvalidRequest, ModelError, RequestFailed
from toolkit.request import Request
from toolkit.sampling.batch import SamplingBatch

__all__ = ["clear_broken", "find_emptied"]


def clear_broken(
    logits: Tensor, largest: Tensor, is_sound: Tensor, requests: Sequence[Request]
) -> dict[int, BaseException]:
    """Return an error for each row whose logits are no distribution, and set it to zeros.

    Args:
        logits: [rows, vocab] float32, changed in place.
        largest: [rows] int64, changed in place.
        is_sound: [rows] bool.
        requests: Whose rows they are.
    """
    if bool(is_sound.all()):
        return {}
    broken = (~is_sound).nonzero().flatten().tolist()
    logits[broken], largest[broken] = 0.0, 0  # so that the steps go on for the others
    return {row: _broken(requests[row]) for row in broken}


def _broken(request: Request) -> BaseException:
    """Say what may have made a request's logits no numbers."""
    if request.hooks:
        return RequestFailed(
            "the logits are not finite numbers: this request's hooks made activations too large "
            "for the layers after them (a smaller scale?), or the model's weights are broken"
        )
    return ModelError(
        "the model's logits are not finite numbers: its weights are broken, or it "
        "overflows in this dtype (try dtype='float32')"
    )


def find_emptied(logits: Tensor, batch: SamplingBatch) -> dict[int, BaseException]:
    """Return an error for each row [rows, vocab] whose masks left no token."""
    if not batch.masked:
        return {}
    has_token = (batch.masked.select(logits).amax(dim=1) > -torch.inf).tolist()
    return {
        row: InvalidRequest(
            "no token is left to choose: allowed_token_ids, bad_words, min_tokens, "
            "structured_outputs and raw processors together forbid every one at output token "
            f"{batch.requests[row].num_output_tokens}"
        )
        for row, is_possible in zip(batch.masked.numbers, has_token, strict=True)
        if not is_possible
    }
