"""The simulator against the real engine, in small: what must hold on any machine."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.experiments.catalogue import can_you_trust_the_simulator as experiment
from toolkit.experiments.runs.saturation import saturation
from toolkit.llm import LLM

SLOW = pytest.mark.slow  # it runs the engine for seconds
IN_TIME, LATE = saturation([0.001], []), saturation([5.0], [])


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch, LLM(max_num_seqs=8) as llm:
        patch.setitem(experiment._FIT_SECONDS, "quick", 0.5)
        patch.setitem(experiment._CHECK_SECONDS, "quick", 0.5)
        yield experiment.run(progress=False, llm=llm)


@SLOW
def test_the_schedule_is_identical(result):
    assert result.measured["vidur-identity"] == 100
    assert set(result.data["identity"]["table"]) == {"chunks", "steps", "requests"}


@SLOW
def test_every_claim_is_measured_and_says_what_was_worst_unless_the_machine_was_busy(result):
    errors = result.data["errors"]
    for name, quantile in (("vidur-mean-error", "mean"), ("vidur-p90-error", "p90")):
        assert "capacity" in result.reasons[name] or "busy" in result.reasons[name]
        if not result.reasons[name].startswith("machine busy"):
            worst = 100 * errors[errors["quantile"] == quantile]["error"].abs().max()
            assert result.measured[name] == pytest.approx(worst)
        assert len(result.samples.get(name, ())) == (name in result.measured)
        assert (name in result.measured) != result.reasons[name].startswith("machine busy")
    assert set(errors["share"]) == set(experiment.SHARES)
    assert set(errors["metric"]) == {
        "ttft_s",
        "tpot_s",
        "e2e_s",
        "requests_per_s",
        "output_tokens_per_s",
    }


@SLOW
def test_fits_before_between_and_after_tell_whether_the_machine_kept_its_speed(result):
    drift = result.data["drift"]
    assert len(drift) == 3 * len(experiment.SHARES)
    assert (drift["seconds"] > 0).all()
    said = result.reasons["vidur-mean-error"]
    assert f"{drift['slower'].max():.1%}" in said or "client" in said


def test_no_claim_is_judged_where_the_machine_changed_its_speed_by_more_than_is_claimed():
    assert not experiment._busy(0.02, {0.7: IN_TIME, 0.85: None})
    found = experiment._busy(0.12, {0.7: IN_TIME})
    assert set(found) == {"vidur-mean-error"}  # 9 %, and 15 % for P90
    assert found["vidur-mean-error"].startswith("machine busy: fits ")
    assert "differ by 12.0%" in found["vidur-mean-error"]
    assert set(experiment._busy(0.5, {})) == {"vidur-mean-error", "vidur-p90-error"}


def test_no_claim_is_judged_where_the_client_was_late():
    found = experiment._busy(0.02, {0.7: IN_TIME, 0.85: LATE})
    assert set(found) == {"vidur-mean-error", "vidur-p90-error"}
    assert set(found.values()) == {"machine busy: the client was late at 85% of capacity"}


@SLOW
def test_the_figure_carries_what_it_draws(result):
    figure = experiment.plot(result)
    assert figure.data.equals(result.data["errors"])
    left, right = figure.axes
    assert "ms" in left.get_xlabel()
    assert "%" in right.get_xlabel()
    assert np.isfinite(result.data["steps"]["predicted_s"]).all()
