"""The logit lens: what every layer would have said, had it been the last one.

nostalgebraist, "interpreting GPT: the logit lens", 2020: the residual sum after each layer goes
through the final norm and the unembedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.request import Request
from toolkit.runtime.hooks.captured import Captured

__all__ = ["Lens", "read_lens"]

_MAX_LOGITS = 1 << 22  # 16 MiB: logits of all layers and positions could take gigabytes


@dataclass(frozen=True, slots=True)
class Lens:
    """What every layer thinks of the next token, at each position of a request.

    ``tokens`` are the texts at the positions, ``next_tokens`` what came after them (the token that
    was finally chosen there); the arrays are float32 natural logarithms and int64 ids. A position
    after which nothing came yet has NaN in ``logprob``.
    """

    request_id: str
    layers: list[str]  # "embed", "layers.0", ...: the residual sum after it
    positions: list[int]
    tokens: list[str]
    next_tokens: list[str]
    logprob: NDArray[np.float32] = field(repr=False)  # [layers, positions], of the next token
    top_ids: NDArray[np.int64] = field(repr=False)  # [layers, positions, top]
    top_texts: list[list[list[str]]] = field(repr=False)
    top_logprobs: NDArray[np.float32] = field(repr=False)  # [layers, positions, top]


class Reader(Protocol):
    """Makes logits of a residual sum, and text of tokens."""

    def read_out(self, residual: Tensor) -> Tensor:
        """Score the vocabulary for residual sums [rows, hidden]."""
        ...

    def token_text(self, token_id: int) -> str:
        """Return a token as text."""
        ...


def read_lens(request: Request, captured: Mapping[str, Captured], reader: Reader, top: int) -> Lens:
    """Read the residual sums that were captured of a request.

    Raises:
        ToolkitError: there are none.
    """
    points = [p for p in captured if p == "embed" or p.endswith(".resid_post")]
    if not points:
        raise ToolkitError("a lens needs residual sums: capture layers.*.resid_post")
    states = [captured[point] for point in points]
    positions = list(states[0].positions)
    tokens = request.token_ids
    following = [tokens[p + 1] if p + 1 < len(tokens) else None for p in positions]
    chosen = torch.tensor([0 if token_id is None else token_id for token_id in following])
    logprobs, ids, tops = [], [], []
    for state in states:
        own, best_ids, best = _read(state.tensor, chosen, reader, top)
        own[[token_id is None for token_id in following]] = torch.nan
        logprobs.append(own.numpy())
        ids.append(best_ids.numpy())
        tops.append(best.numpy())
    top_ids = np.stack(ids)
    text = reader.token_text
    return Lens(
        request_id=request.id,
        layers=[point.removesuffix(".resid_post") for point in points],
        positions=positions,
        tokens=[text(tokens[position]) for position in positions],
        next_tokens=["" if token_id is None else text(token_id) for token_id in following],
        logprob=np.stack(logprobs),
        top_ids=top_ids,
        top_texts=[[[text(int(i)) for i in at] for at in layer] for layer in top_ids],
        top_logprobs=np.stack(tops),
    )


@torch.no_grad()
def _read(state: Tensor, chosen: Tensor, reader: Reader, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities of the chosen tokens [rows]; top ids and theirs [rows, top]."""
    vocab_size = reader.read_out(state[:1]).shape[-1]
    num_rows = max(1, _MAX_LOGITS // vocab_size)
    pieces = []
    for rows, ids in zip(state.split(num_rows), chosen.split(num_rows), strict=True):
        logprobs = reader.read_out(rows).log_softmax(dim=-1).cpu()
        best, best_ids = logprobs.topk(min(top, vocab_size), dim=-1)
        pieces.append((logprobs.gather(1, ids[:, None]).squeeze(1), best_ids, best))
    own, best_ids, best = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return own, best_ids, best
