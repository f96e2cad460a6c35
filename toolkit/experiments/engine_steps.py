"""Steps of the real engine, with the bundled model, under several policies that take turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from toolkit.experiments.workloads.workload import Workload
from toolkit.request import SamplingParams
from toolkit.simulate import Feed

__all__ = ["steps_by_policy"]


def steps_by_policy(
    loads: Sequence[Workload], policies: Mapping[str, Any], batch_size: int
) -> dict[str, pd.DataFrame]:
    """Serve closed loads with the bundled model on this thread; return the steps of each policy.

    The policies take turns, so that what else the machine does befalls both; and every step counts
    as the median of those with as many requests and prompts, since others' work is nobody's step.
    """
    from toolkit.llm import LLM  # here: torch takes seconds to load, and simulations need none

    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in policies}
    with LLM(max_num_seqs=batch_size, enable_prefix_caching=False) as llm:
        _serve(llm, loads[0].head(1))  # a warm-up
        for w in loads:
            for name, policy in policies.items():
                llm.engine.scheduler.policy = policy
                tables[name].append(_serve(llm, w))
    return {name: _steadied(pd.concat(parts)) for name, parts in tables.items()}


def _serve(llm: Any, w: Workload) -> pd.DataFrame:
    """Serve a closed load step by step; return its table of steps."""
    engine, vocab_size = llm.engine, len(llm.tokenizer)
    first = engine.scheduler.next_step
    feed, arrival_ids = Feed(w.arrivals()), {}
    while True:
        for _, arrival_id, arrival in feed.take(math.inf):
            prompt = w.prompt_token_ids(arrival_id, vocab_size)
            request = engine.add(prompt, _params(arrival.num_output_tokens))
            arrival_ids[request.id] = arrival_id
        if not engine.scheduler.has_work:
            break
        for update in engine.step().updates:
            if update.finish_reason is not None:
                feed.ended(arrival_ids[update.request_id], 0.0)
    steps = engine.record.steps
    return steps[steps["step"] >= first]


def _steadied(steps: pd.DataFrame) -> pd.DataFrame:
    alike = [steps["num_requests"], steps["num_prompt_tokens"]]
    seconds = (steps["duration_s"] + steps["host_gap_s"]).groupby(alike).transform("median")
    return steps.assign(duration_s=seconds, host_gap_s=0.0)


def _params(num_output_tokens: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=num_output_tokens, ignore_eos=True, temperature=0.0, detokenize=False
    )
