"""A workload as the arrivals that a machine without a model is given, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit.simulate.arrivals import Arrival

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["ArrivalStream"]

# Prompts of a simulated load are of this vocabulary: large enough that random blocks never agree.
_VOCAB_SIZE = 32_768
_ROWS_AT_ONCE = 4096


class ArrivalStream(Iterator[Arrival]):
    """An iterator that knows how many arrivals there are in all; see `Workload.arrivals`."""

    def __init__(self, workload: Workload, block_size: int | None) -> None:
        self._num_requests = len(workload)
        self._arrivals = _arrivals(workload, block_size)

    def __len__(self) -> int:
        return self._num_requests

    def __next__(self) -> Arrival:
        return next(self._arrivals)


def _arrivals(workload: Workload, block_size: int | None) -> Iterator[Arrival]:
    columns, content, seed = workload.columns, workload.content, workload.seed
    key_tokens = block_size or getattr(content, "block_tokens", None)  # of a trace's own blocks
    for start in range(0, len(workload), _ROWS_AT_ONCE):
        chunks = (c[start : start + _ROWS_AT_ONCE].tolist() for c in columns.numbers().values())
        for arrival_id, row in enumerate(zip(*chunks, strict=True), start):
            due_s, after, num_prompt_tokens, num_output_tokens, priority = row
            keys = prompt = None
            if content.shares:
                keys = content.block_keys(columns, arrival_id, block_size=block_size, seed=seed)
                if keys is None:
                    prompt = workload.prompt_token_ids(arrival_id, _VOCAB_SIZE)
            yield Arrival(
                arrival_id,
                due_s,
                num_prompt_tokens,
                num_output_tokens,
                after,
                prompt,
                keys or (),
                priority,
                {name: column[arrival_id] for name, column in columns.tags.items()} or None,
                key_tokens=None if keys is None else key_tokens,
            )
