"""Tokens that are drawn on the device and not looked at yet.

Request path 8/8, beside sampling.sampler: what an engine on a GPU samples with, so that the next
step can be launched behind this one. Nothing here waits for the device before ``finish()``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.kernels.transfers import HostCopy
from toolkit.sampling.batch import SamplingBatch
from toolkit.sampling.refusals import broken_rows, emptied_rows

__all__ = ["Drawn"]


class Drawn:
    """One token per row of a batch whose rows need no look at a token before the next one.

    Args:
        batch: The rows.
        tokens: [rows] int64.
        is_sound: [rows] bool, whether a row's logits were numbers.
        has_token: [masked rows] bool, whether the masks left a token; None without such rows.
    """

    def __init__(
        self, batch: SamplingBatch, tokens: Tensor, is_sound: Tensor, has_token: Tensor | None
    ) -> None:
        self.batch = batch
        self.tokens = tokens
        self._copy = HostCopy(torch.stack((tokens, is_sound.to(torch.int64))))
        self._has_token = None if has_token is None else HostCopy(has_token)

    def finish(self) -> tuple[list[int], dict[int, BaseException]]:
        """Wait for the tokens; return them, and the errors of rows that have none."""
        token_ids, is_sound = self._copy.wait().tolist()
        errors: dict[int, BaseException] = {}
        if self._has_token is not None:
            errors = emptied_rows(self._has_token.wait().tolist(), self.batch)
        errors |= broken_rows(is_sound, self.batch.requests)  # a row's first error counts
        return token_ids, errors
