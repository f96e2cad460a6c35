"""Figures 2 and 13 in small: what must hold at any size."""

from __future__ import annotations

import pytest

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import where_the_memory_goes as experiment


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(experiment._DURATIONS_S, "quick", {"sharegpt": 40.0, "alpaca": 4.0})
        patch.setattr(experiment, "_NUM_SEEDS", 2)
        return experiment.run(progress=False)


@pytest.mark.slow
def test_orca_max_never_runs_more_than_seven(result) -> None:
    batched = result.data["batched"]
    assert batched.query("allocator == 'orca-max'")["most_running"].tolist() == [7] * 4
    assert result.measured["vllm-orca-max-batch"] == 7


@pytest.mark.slow
def test_the_parts_of_memory_add_up(result) -> None:
    memory = result.data["memory"]
    sums = memory.groupby(["load", "allocator", "seed"])[
        ["share_of_all", "share_of_allocated"]
    ].sum()
    assert sums.to_numpy() == pytest.approx(1)
    oracle = memory.query("allocator == 'orca-oracle' and part == 'internal_fragmentation'")[
        "share_of_all"
    ]
    assert oracle.to_numpy() == pytest.approx(0)
    # Half a block of 16 is empty on average, and an Alpaca request has but two to five blocks.
    tokens = memory.query("allocator == 'paged' and part == 'token_states'").set_index("load")
    assert (tokens.loc["sharegpt", "share_of_allocated"] > 0.95).all()
    assert (tokens.loc["alpaca", "share_of_allocated"] > 0.75).all()


@pytest.mark.slow
def test_every_claim_is_measured_and_the_order_of_allocators_is_the_papers(result) -> None:
    assert set(result.measured) == set(result.samples) == set(experiment.CLAIMS)
    assert all(len(values) == 2 for values in result.samples.values())
    for load in ("sharegpt", "alpaca"):
        running = [
            result.measured[f"vllm-fig13-{load}-{allocator}"]
            for allocator in experiment.ALLOCATOR_NAMES
        ]
        assert running == sorted(running)


@pytest.mark.slow
def test_the_figure_carries_what_it_draws(result) -> None:
    figure = experiment.plot(result)
    assert set(figure.data["panel"]) == {"memory", "sharegpt", "alpaca"}
    assert set(figure.data["source"]) == {"measured", "paper"}
    assert figure.to_png()[:4] == b"\x89PNG"


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="quick"):
        experiment.run("huge")
