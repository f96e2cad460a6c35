"""The hit-rate experiment, on a trace that is made up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import prefix_cache_hit_rate as experiment
from toolkit.experiments.catalogue.prefix_cache_hit_rate import synthetic_trace
from toolkit.experiments.claims.table import find_claim


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TOOLKIT_TRACES", raising=False)
        patch.setitem(experiment._SIZES, "quick", (100, 1_000, None))
        patch.setitem(experiment._NUM_PROMPTS, "quick", 80)
        patch.setattr(experiment, "synthetic_trace", lambda seed: synthetic_trace(200, seed=seed))
        return experiment.run(progress=False)


def test_without_the_trace_its_claims_are_not_judged_and_it_says_why(result):
    assert result.data["hit_rates"]["trace"].unique().tolist() == ["synthetic"]
    for claim_id in experiment._MOONCAKE:
        assert claim_id not in result.measured
        assert "TOOLKIT_TRACES" in result.reasons[claim_id]
        assert not find_claim(claim_id).judge(None, result.reasons[claim_id]).ratio >= 0


def test_more_blocks_find_more_and_the_future_is_the_best_guide(result):
    rates = result.data["hit_rates"].pivot(
        index="num_blocks", columns="eviction", values="hit_rate"
    )
    assert (np.diff(rates["lru"]) >= 0).all()
    assert (rates["belady"] >= rates.max(axis=1)).all()


def test_prompts_with_a_structure_hit_as_arithmetic_says(result):
    structured = result.data["structured"].set_index("prompts")["token_hit_rate"]
    # 336 of 341 shared tokens fill blocks, beside 60 on average.
    assert structured["few-shot"] == pytest.approx(336 / 401, abs=0.03)
    assert 0.4 < structured["chat"] < 0.65
    assert result.measured == {}  # of our own choice, and no paper's


def test_a_trace_that_is_given_is_used_and_judged(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps({"hash_ids": [0, n]}) + "\n" for n in range(1, 11)))
    result = experiment.run(trace=path, progress=False)
    assert result.measured["mooncake-conversation-unbounded"] == pytest.approx(45.0)
    assert result.data["hit_rates"]["trace"].unique().tolist() == ["trace"]
    figure = experiment.plot(result)
    assert "published" in figure.axes[0].get_legend_handles_labels()[1][-1]
    with pytest.raises(InvalidConfig, match="is no file"):
        experiment.run(trace=tmp_path / "nowhere.jsonl")


def test_the_figure_carries_what_it_draws(result):
    figure = experiment.plot(result)
    assert figure.data.equals(result.data["hit_rates"])
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["LRU", "FIFO", "LFU", "Belady"]
    assert "synthetic" in figure.axes[0].get_title(loc="left")
    assert "blocks" in figure.axes[0].get_xlabel()


def test_the_made_up_trace_is_the_same_for_the_same_seed():
    assert synthetic_trace(20, seed=1) == synthetic_trace(20, seed=1) != synthetic_trace(20, seed=2)
