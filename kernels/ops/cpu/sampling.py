"""Cut-offs, the race and the largest logit of each row in C++: reference_sampling.py's ops.

Request path 8/8: from sampling.sampler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.kernels import reference_sampling
from toolkit.kernels.cpu.library import Library, pointer

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

    def cut_unlikely(
        self,
        logits: Tensor,
        *,
        top_k: Tensor,
        max_top_k: int,
        top_p: Tensor | None,
        min_p: Tensor | None,
    ) -> Tensor:
        """Apply top-k, top-p and min-p in place: reference_sampling.cut_unlikely.

        Where the sum of probabilities comes within rounding of p, one token more or less may be
        kept than there.
        """
        if not _are_rows(logits):
            return reference_sampling.cut_unlikely(
                logits, top_k=top_k, max_top_k=max_top_k, top_p=top_p, min_p=min_p
            )
        pointers = logits.data_ptr(), top_k.data_ptr(), pointer(top_p), pointer(min_p)
        self._library.cut_unlikely(*pointers, *logits.shape, logits.stride(0))
        return logits


def _are_rows(logits: Tensor) -> bool:
    """Whether the C++ can read them: float32, at least one token, each row contiguous."""
    return logits.dtype is torch.float32 and logits.shape[1] > 0 and logits.stride(1) == 1
