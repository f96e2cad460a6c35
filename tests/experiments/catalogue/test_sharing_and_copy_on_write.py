"""Figure 15 in small: what must hold at any size."""

from __future__ import annotations

import pytest

from toolkit.experiments.catalogue import sharing_and_copy_on_write as experiment
from toolkit.experiments.claims.table import find_claim

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        few = {decoding: {"alpaca": 20, "sharegpt": 2} for decoding in ("parallel", "beam")}
        patch.setitem(experiment._NUM_REQUESTS, "quick", few)
        patch.setitem(experiment._NUM_SEEDS, "quick", 2)
        return experiment.run(progress=False)


def test_every_claim_is_measured(result):
    assert set(result.measured) == set(result.samples) == set(experiment.CLAIMS)
    assert all(len(values) == 2 for values in result.samples.values())
    assert all(find_claim(claim_id) for claim_id in experiment.CLAIMS)
    assert "by chance" in result.reasons["vllm-fig15-alpaca-beam-2"]
    assert "by chance" not in result.reasons["vllm-fig15-alpaca-parallel-2"]


def test_wider_is_more_to_share_and_beams_share_more_than_samples(result):
    saved = result.data["saved"].pivot_table(
        index="width", columns=["load", "decoding"], values="saved_percent"
    )
    for load in ("alpaca", "sharegpt"):
        for decoding in ("parallel", "beam"):
            assert saved[load, decoding].is_monotonic_increasing
        assert (saved[load, "beam"] > saved[load, "parallel"]).all()


def test_samples_save_what_the_closed_form_says(result):
    samples = result.data["saved"].query("decoding == 'parallel'")
    assert samples["saved_percent"].to_numpy() == pytest.approx(
        samples["closed_form_percent"].to_numpy(), rel=0.15
    )


def test_the_figure_carries_what_it_draws(result):
    figure = experiment.plot(result)
    saved = result.data["saved"]
    assert len(figure.data) == len(saved) / saved["seed"].nunique()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Alpaca", "ShareGPT"]
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert {"parallel samples", "beam search", "paper", "closed form"} == set(labels)
