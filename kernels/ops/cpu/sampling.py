"""The race and the largest logit of each row in C++, with reference_sampling.py's signatures.

Request path 8/8: from sampling.sampler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.kernels import reference_sampling
from toolkit.kernels.cpu.library import Library

__all__ = ["SamplingOps"]


class SamplingOps:
    """The sampling ops of a compiled library, as callables for ``Ops``."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def race(self, logits: Tensor, keys: Tensor) -> Tensor:
        """Draw one token per row from the softmax of its logits: reference_sampling.race."""
        if not _are_rows(logits):
            return reference_sampling.race(logits, keys)
        tokens = torch.empty(len(logits), dtype=torch.int64)
        keys = keys.contiguous()
        self._library.race(
            logits.data_ptr(), keys.data_ptr(), tokens.data_ptr(), *logits.shape, logits.stride(0)
        )
        return tokens

    def argmax(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Find the largest logit of each row: reference_sampling.argmax, in one pass."""
        if not _are_rows(logits):
            return reference_sampling.argmax(logits)
        tokens = torch.empty(len(logits), dtype=torch.int64)
        is_sound = torch.empty(len(logits), dtype=torch.bool)
        pointers = logits.data_ptr(), tokens.data_ptr(), is_sound.data_ptr()
        self._library.argmax(*pointers, *logits.shape, logits.stride(0))
        return tokens, is_sound


def _are_rows(logits: Tensor) -> bool:
    """Whether the C++ can read them: float32, at least one token, each row contiguous."""
    return logits.dtype is torch.float32 and logits.shape[1] > 0 and logits.stride(1) == 1
