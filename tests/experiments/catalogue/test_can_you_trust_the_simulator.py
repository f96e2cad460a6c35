"""The simulator against the real engine, in small: what must hold on any machine."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.experiments.catalogue import can_you_trust_the_simulator as experiment
from toolkit.llm import LLM

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch, LLM(max_num_seqs=8) as llm:
        patch.setitem(experiment._FIT_SECONDS, "quick", 0.5)
        patch.setitem(experiment._CHECK_SECONDS, "quick", 0.5)
        yield experiment.run(progress=False, llm=llm)


def test_the_schedule_is_identical(result):
    assert result.measured["vidur-identity"] == 100
    assert set(result.data["identity"]["table"]) == {"chunks", "steps", "requests"}


def test_every_claim_is_measured_and_says_what_was_worst(result):
    assert set(result.measured) == set(experiment.CLAIMS)
    assert {name: len(values) for name, values in result.samples.items()} == {
        "vidur-mean-error": 1,
        "vidur-p90-error": 1,
    }
    assert "capacity" in result.reasons["vidur-mean-error"]
    errors = result.data["errors"]
    means = errors[errors["quantile"] == "mean"]
    assert result.measured["vidur-mean-error"] == pytest.approx(100 * means["error"].abs().max())
    assert set(errors["share"]) == set(experiment.SHARES)
    assert set(errors["metric"]) == {
        "ttft_s",
        "tpot_s",
        "e2e_s",
        "requests_per_s",
        "output_tokens_per_s",
    }


def test_fits_before_between_and_after_tell_whether_the_machine_kept_its_speed(result):
    drift = result.data["drift"]
    assert len(drift) == 3 * len(experiment.SHARES)
    assert (drift["seconds"] > 0).all()
    assert f"{drift['slower'].max():.1%}" in result.reasons["vidur-mean-error"]


def test_the_figure_carries_what_it_draws(result):
    figure = experiment.plot(result)
    assert figure.data.equals(result.data["errors"])
    left, right = figure.axes
    assert "ms" in left.get_xlabel()
    assert "%" in right.get_xlabel()
    assert np.isfinite(result.data["steps"]["predicted_s"]).all()
