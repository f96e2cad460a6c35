"""Hold one step's tokens as the decoder takes them: flat, the requests one after the other.

Request path 6/8: built by runtime from a plan, read by models.decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["FlatBatch"]


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """The tokens of all requests in one step, on the decoder's device.

    A prompt of three tokens and one token of a request that has four in the cache, blocks of four:

    >>> import torch
    >>> batch = FlatBatch(
    ...     token_ids=torch.tensor([5, 6, 7, 8]),
    ...     positions=torch.tensor([0, 1, 2, 4]),
    ...     slots=torch.tensor([12, 13, 14, 4]),
    ...     block_tables=torch.tensor([[3, 0], [2, 1]], dtype=torch.int32),
    ...     query_starts=torch.tensor([0, 3, 4], dtype=torch.int32),
    ...     context_lens=torch.tensor([3, 5], dtype=torch.int32),
    ...     logit_rows=torch.tensor([2, 3]),
    ... )
    >>> batch.num_tokens, batch.num_requests
    (4, 2)
    """

    token_ids: Tensor  # [num_tokens] int64
    positions: Tensor  # [num_tokens] int64, from 0 in each request
    slots: Tensor  # [num_tokens] int64: where each token's keys and values go
    block_tables: Tensor  # [num_requests, max_blocks] int32, any valid id past the context
    query_starts: Tensor  # [num_requests + 1] int32: row at which each request's tokens start
    context_lens: Tensor  # [num_requests] int32, this step's tokens included
    logit_rows: Tensor  # [num_samples] int64: rows of the flat batch whose logits are wanted

    @property
    def num_tokens(self) -> int:
        """Rows of the flat batch."""
        return len(self.token_ids)

    @property
    def num_requests(self) -> int:
        """Requests that have tokens in this step."""
        return len(self.context_lens)
