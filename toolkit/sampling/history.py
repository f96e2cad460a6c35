"""Which tokens each running request has seen: what penalties are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.request import Request

__all__ = ["SeenTokens", "TokenHistory", "seen_before"]


class SeenTokens(NamedTuple):
    """What rows have seen of the vocabulary; [1, vocab] stands for the same in every row."""

    output_counts: Tensor  # [rows, vocab] int32, occurrences in the output
    in_prompt: Tensor  # [rows, vocab] bool


class TokenHistory:
    """Counts per running request and token, kept only for requests with penalties.

    All requests share two tensors, a slot each; a step counts its tokens in one indexed operation.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._slots: dict[str, int] = {}  # by request id
        self._free: list[int] = []
        self._counts = torch.zeros((0, vocab_size), dtype=torch.int32, device=device)
        self._in_prompt = torch.zeros((0, vocab_size), dtype=torch.bool, device=device)

    @property
    def num_slots(self) -> int:
        """Requests that there is room for at the moment; the room doubles when it is full."""
        return len(self._counts)

    def start(self, request: Request) -> None:
        """Count a request's tokens from scratch: it was admitted or resumed."""
        if not request.params.has_penalties:
            return
        if request.id not in self._slots:
            if not self._free:
                self._grow()
            self._slots[request.id] = self._free.pop()
        slot = self._slots[request.id]
        self._counts[slot] = self._bincount(request.output_token_ids)
        self._in_prompt[slot] = self._bincount(request.prompt_token_ids) > 0

    def append(self, requests: Sequence[Request], token_ids: Tensor) -> None:
        """Count one more output token [rows] int64 of each request; all have penalties."""
        self._counts[self._slots_of(requests), token_ids] += 1  # no slot occurs twice

    def gather(self, requests: Sequence[Request]) -> SeenTokens:
        """Return what these requests have seen, a row each."""
        slots = self._slots_of(requests)
        return SeenTokens(self._counts[slots], self._in_prompt[slots])

    def forget(self, request_id: str) -> None:
        """Drop a request that ended; the last one takes the memory with it."""
        slot = self._slots.pop(request_id, None)
        if slot is None:
            return
        self._free.append(slot)
        if not self._slots:
            self._free.clear()
            self._counts, self._in_prompt = self._counts[:0].clone(), self._in_prompt[:0].clone()

    def _grow(self) -> None:
        old = self.num_slots
        more = max(old, 1)
        self._counts = torch.cat([self._counts, self._counts.new_zeros(more, self._vocab_size)])
        self._in_prompt = torch.cat(
            [self._in_prompt, self._in_prompt.new_zeros(more, self._vocab_size)]
        )
        self._free += range(old + more - 1, old - 1, -1)

    def _slots_of(self, requests: Sequence[Request]) -> Tensor:
        slots = [self._slots[request.id] for request in requests]
        return torch.tensor(slots, dtype=torch.int64, device=self._device)

    def _bincount(self, token_ids: Sequence[int]) -> Tensor:
        ids = torch.tensor(token_ids, dtype=torch.int64, device=self._device)
        return torch.bincount(ids, minlength=self._vocab_size).to(torch.int32)


def seen_before(prompt: Tensor, positions: Tensor, vocab_size: int) -> SeenTokens:
    """Return what a request has seen when it is at each of several positions of its prompt.

    Args:
        prompt: [num_prompt] int64 token ids.
        positions: [rows] int64; row r has seen the tokens before position r.
        vocab_size: Tokens in all.
    """
    indices = torch.arange(len(prompt), device=prompt.device)
    first = torch.full((vocab_size,), len(prompt), device=prompt.device)
    first.scatter_reduce_(0, prompt, indices, "amin")  # [vocab]: where each token first occurs
    nothing = torch.zeros((1, vocab_size), dtype=torch.int32, device=prompt.device)
    return SeenTokens(nothing, first.unsqueeze(0) < positions.unsqueeze(1))
