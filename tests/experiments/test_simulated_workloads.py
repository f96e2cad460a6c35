"""Workloads on a simulated machine: everything asked is served, and shared prompts are found."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.experiments import (
    AtOnce,
    ChatTurns,
    Closed,
    Content,
    Fixed,
    Poisson,
    SharedPrefix,
    Uniform,
    Workload,
)
from toolkit.experiments.workloads.columns import Ragged
from toolkit.experiments.workloads.given import GivenBlocks
from toolkit.simulate import Machine


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine("opt-13b", "A100-80GB")


@pytest.mark.parametrize("content", [SharedPrefix(70, 3), ChatTurns(3, think_s=0.5)], ids=repr)
def test_names_of_blocks_lead_to_the_schedule_that_tokens_lead_to(
    machine: Machine, content: Content
) -> None:
    w = Workload(Poisson(4.0), Uniform((5, 60), (2, 20)), num_requests=24, content=content)
    named = machine.run(w.arrivals(block_size=16), block_size=16).requests
    told = machine.run(w.arrivals(), block_size=16).requests
    assert named.num_cached_tokens.sum() > 0
    for column in ("num_cached_tokens", "first_token_s", "finished_s", "num_output_tokens"):
        assert named[column].tolist() == told[column].tolist()


def test_a_cache_with_room_finds_what_a_workload_says_it_shares(machine: Machine) -> None:
    """One request after another, whole blocks, so that nothing is lost at their edges."""
    w = Workload(Closed(1), Fixed(20, 4), num_requests=30, content=SharedPrefix(64, 4))
    served = machine.run(w.arrivals(block_size=16), block_size=16).requests
    said = w.content.num_shared_tokens(w.columns, w.seed)
    assert served.num_cached_tokens.tolist() == said.tolist()


def test_names_of_a_trace_are_never_those_of_prompts_without_names(machine: Machine) -> None:
    """A prompt shorter than a block has no name; its block is full with its output."""
    num = 6
    ids = Ragged.of([[k] for k in range(num)] * 2, dtype=np.int64)
    columns = Workload(AtOnce(), Fixed(1, 12), num_requests=2 * num).columns
    lengths = np.array([6] * num + [32] * num, np.int32)
    after = np.arange(-1, 2 * num - 1, dtype=np.int32)
    columns = columns.replace(num_prompt_tokens=lengths, after=after)
    w = Workload.from_columns(columns, content=GivenBlocks(ids, 32))
    served = machine.run(w.arrivals(block_size=8), block_size=8).requests
    assert served.num_cached_tokens.tolist() == [0] * 2 * num
