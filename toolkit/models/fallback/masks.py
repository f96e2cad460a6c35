"""Read what a mask function of transformers lets a token see.

A mask function answers, for indices (batch, head, query, key) that broadcast, whether the query
sees the key; transformers would fill a dense mask with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["MaskFunction", "window_of"]

MaskFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def window_of(mask: MaskFunction, length: int) -> int | None:
    """Return how many positions a token sees, its own included; None if all of ``length``.

    Raises ValueError if the mask shows anything but the last so many positions: a later position
    (bidirectional), a chunk, blocks, or what is known only while the model runs.
    """
    last = _visible(mask, torch.tensor([length - 1]), length)
    window = int(last.sum())
    # Either side of where a window, or a chunk of as many tokens, begins to hide something.
    near = {0, 1, window - 1, window, window + 1, 2 * window - 1, 2 * window, length // 2}
    queries = torch.tensor(sorted(at for at in near | {length - 1} if 0 <= at < length))
    distance = queries[:, None] - torch.arange(length)
    expected = (distance >= 0) & (distance < window)
    visible = _visible(mask, queries, length)
    if (visible & (distance < 0)).any():
        raise ValueError("it attends to later tokens")
    if window == 0 or not torch.equal(visible, expected):
        raise ValueError("its mask is neither causal nor a window, but perhaps of chunks")
    return window if window < length else None


def _visible(mask: MaskFunction, queries: Tensor, length: int) -> Tensor:
    """Evaluate a mask [len(queries), length] on the CPU."""
    zero = torch.zeros((1, 1), dtype=torch.int64)
    try:
        seen = mask(zero, zero, queries[:, None], torch.arange(length)[None])
        return seen.expand(len(queries), length).cpu()
    except (RuntimeError, NotImplementedError) as error:  # it holds tensors without values
        raise ValueError(
            "its mask is made for one batch, as that of attention in chunks"
        ) from error
