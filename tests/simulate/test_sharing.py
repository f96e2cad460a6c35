"""Blocks that samples and beams of one prompt share, against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.clock import VirtualClock
from toolkit.engine.plan import ScheduledChunk, StepPlan
from toolkit.errors import InvalidConfig
from toolkit.simulate import BeamRunner, closed_form_sharing, saved_by_sharing

LENGTHS = [(70, 40), (20, 90), (5, 30), (130, 64)]


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(24, 60)), min_size=2, max_size=8),
    st.sampled_from([2, 4]),
)
def test_parallel_samples_save_what_the_closed_form_says(lengths, width):
    saved = saved_by_sharing(lengths, "parallel", width)
    # The first sample is a step ahead of the others, and blocks are counted every fourth step.
    assert saved == pytest.approx(closed_form_sharing(lengths, width), abs=0.03)


def test_samples_share_nothing_of_a_prompt_that_fills_no_block():
    assert saved_by_sharing([(10, 30)] * 4, "parallel", 3) == pytest.approx(0, abs=0.02)
    assert closed_form_sharing([(10, 30)] * 4, 3) == 0


@pytest.mark.parametrize("width", [2, 4])
def test_beams_save_more_than_samples_and_less_than_all_but_one(width):
    beams = saved_by_sharing(LENGTHS, "beam", width)
    assert closed_form_sharing(LENGTHS, width) < beams < 1 - 1 / width


def test_the_same_seed_gives_the_same_beams():
    assert saved_by_sharing(LENGTHS, "beam", 3, seed=1) == saved_by_sharing(
        LENGTHS, "beam", 3, seed=1
    )


@pytest.mark.parametrize(("way", "width"), [("parallel", 1), ("greedy", 2)])
def test_what_shares_nothing_is_refused(way, width):
    with pytest.raises(InvalidConfig, match="two sequences or more"):
        saved_by_sharing(LENGTHS, way, width)


def test_candidates_are_probabilities_of_about_one_nat():
    runner = BeamRunner(lambda work: 1.0, VirtualClock())
    runner._tokens["a"], runner._num_candidates["a"] = (), 200
    plan = StepPlan(0, (ScheduledChunk("a", 0, 1, (0,), (), True, True),))
    entropies = []
    for _ in range(400):
        (sampled,) = runner.run(plan).tokens["a"]
        logprobs = np.array([entry.logprob for entry in sampled.logprobs.values()])
        assert (np.diff(logprobs) <= 0).all()
        probabilities = np.exp(logprobs)
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)
        entropies.append(-(probabilities * logprobs).sum())
    assert np.mean(entropies) == pytest.approx(1, abs=0.1)
