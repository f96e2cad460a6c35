"""Which tokens each running request has seen: what penalties are computed from."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.request import Request

__all__ = ["TokenHistory"]


class TokenHistory:
    """Counts per running request and token, kept only for requests with penalties."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._counts: dict[str, Tensor] = {}  # [vocab] int32, occurrences in the output
        self._in_prompt: dict[str, Tensor] = {}  # [vocab] bool

    def start(self, request: Request) -> None:
        """Count a request's tokens from scratch: it was admitted or resumed."""
        if not request.params.has_penalties:
            return
        self._counts[request.id] = self._bincount(request.output_token_ids)
        self._in_prompt[request.id] = self._bincount(list(request.prompt_token_ids)) > 0

    def append(self, request: Request, token_id: int) -> None:
        """Count one more output token."""
        counts = self._counts.get(request.id)
        if counts is not None:
            counts[token_id] += 1

    def stack(self, requests: list[Request]) -> tuple[Tensor, Tensor]:
        """Return counts [rows, vocab] int32 and in_prompt [rows, vocab] bool."""
        counts = torch.stack([self._counts[request.id] for request in requests])
        return counts, torch.stack([self._in_prompt[request.id] for request in requests])

    def forget(self, request_id: str) -> None:
        """Drop a request that ended."""
        self._counts.pop(request_id, None)
        self._in_prompt.pop(request_id, None)

    def _bincount(self, token_ids: list[int]) -> Tensor:
        ids = torch.tensor(token_ids, dtype=torch.int64, device=self._device)
        return torch.bincount(ids, minlength=self._vocab_size).to(torch.int32)
