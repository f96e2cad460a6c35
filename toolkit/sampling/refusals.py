"""Rows of a batch that no token can be chosen in: each fails its own request, the others go on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from toolkit.errors import InvalidRequest, ModelError, RequestFailed
from toolkit.request import Request
from toolkit.sampling.batch import SamplingBatch

__all__ = ["broken_rows", "clear_broken", "emptied_rows", "find_emptied"]


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
    errors = broken_rows(is_sound.tolist(), requests)
    broken = list(errors)
    logits[broken], largest[broken] = 0.0, 0  # so that the steps go on for the others
    return errors


def broken_rows(is_sound: Sequence[bool], requests: Sequence[Request]) -> dict[int, BaseException]:
    """Return an error for each row whose logits are no distribution."""
    return {row: _broken(requests[row]) for row, sound in enumerate(is_sound) if not sound}


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
    return emptied_rows(batch.masked_have_token(logits).tolist(), batch)


def emptied_rows(has_token: Sequence[bool], batch: SamplingBatch) -> dict[int, BaseException]:
    """Return an error for each of the masked rows that has no token."""
    return {
        row: InvalidRequest(
            "no token is left to choose: allowed_token_ids, bad_words, min_tokens, "
            "structured_outputs and raw processors together forbid every one at output token "
            f"{batch.requests[row].num_output_tokens}"
        )
        for row, is_possible in zip(batch.masked.numbers, has_token, strict=True)
        if not is_possible
    }
