"""Requests before a load, so that what is done once is not measured."""

from __future__ import annotations

from random import Random

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads.randomness import FIRST_TOKEN_ID
from toolkit.experiments.workloads.workload import Workload

__all__ = ["warmup_of"]


def warmup_of(workload: Workload, num_requests: int, *, vocab_size: int) -> Workload:
    """Return as many requests, all at once, as long as the first ones of a workload.

    Their prompts are others, so that no prefix cache knows those of the workload.

    Raises:
        InvalidConfig: it is no number of requests.
    """
    if isinstance(num_requests, bool) or not isinstance(num_requests, int) or num_requests < 0:
        raise InvalidConfig(f"warmup={num_requests!r} must be a number of requests, 0 or more")
    draw = Random(f"warmup {workload.fingerprint}")
    first = workload.table.head(num_requests)
    prompts = [
        [draw.randrange(min(FIRST_TOKEN_ID, vocab_size - 1), vocab_size) for _ in range(length)]
        for length in first["num_prompt_tokens"].tolist()
    ]
    return Workload.from_prompts(prompts, first["num_output_tokens"].tolist())
