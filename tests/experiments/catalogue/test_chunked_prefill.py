"""Sarathi-Serve's ablation: who may share a step, and what the paper's order needs."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.experiments.catalogue import chunked_prefill
from toolkit.experiments.catalogue.chunked_prefill import SYSTEMS, TurnsOfChunks
from toolkit.record import Record
from toolkit.simulate import Arrival, Machine

LOAD = [Arrival(i, 0.05 * i, 300 + 200 * (i % 3), 10) for i in range(9)]


def recorded(policy: Any, budget: int) -> Record:
    machine = Machine("opt-1.3b", "A100-40GB")
    return machine.run(
        LOAD,
        policy=policy,
        max_num_batched_tokens=budget,
        num_kv_blocks=512,  # a small pool is checked sooner
        check_every_step=True,
    )


def test_turns_of_chunks_never_mix_prompts_and_generated_tokens() -> None:
    steps = recorded(TurnsOfChunks, 256).steps
    assert not ((steps["num_prompt_tokens"] > 0) & (steps["num_decode_tokens"] > 0)).any()
    assert steps["num_tokens"].max() <= 256


def test_turns_of_chunks_are_turns() -> None:
    steps = recorded(TurnsOfChunks, 256).steps
    is_prompt = (steps["num_prompt_tokens"] > 0).to_numpy()
    streams = (steps["num_running"] - steps["num_admitted"] > 1).to_numpy()
    # While anybody generates, no two steps after one another are for prompts.
    generating = steps["num_decode_tokens"].gt(0).to_numpy().cumsum() > 0
    pairs = is_prompt[1:] & is_prompt[:-1] & generating[:-1] & streams[1:] & streams[:-1]
    assert pairs.sum() <= 2  # of the last ones: nobody generates between them


def test_everybody_is_served_by_every_system() -> None:
    for name, options in SYSTEMS.items():
        record = recorded(options["policy"], min(options["max_num_batched_tokens"], 2_048))
        assert (record.requests["status"] == "finished").all(), name
        assert (record.requests["num_output_tokens"] == 10).all(), name


@pytest.mark.slow
def test_the_papers_order_and_gain_come_out() -> None:
    result = chunked_prefill.run("quick", progress=False)
    assert set(result.measured) == set(chunked_prefill.CLAIMS)
    assert result.measured["sarathi-tbt-gain"] >= 3
    assert result.measured["sarathi-tbt-order"] == 1
    assert result.measured["sarathi-ttft-order"] == 1
    fig = chunked_prefill.plot(result)
    assert set(fig.data["system"]) == set(SYSTEMS)
    assert fig.to_png().startswith(b"\x89PNG")
