"""The experiment in small: the schedule is the closed form's, whatever steps take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.experiments.catalogue import continuous_against_static as experiment


@pytest.mark.slow
def test_the_experiment_finds_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(experiment._SIZES["quick"], cvs=(0.0, 1.0), num_batches=12, engine_rounds=1)
    monkeypatch.setitem(experiment._SIZES, "quick", small)
    result = experiment.run(progress=False)
    gains = result.data["gains"]
    assert set(result.measured) == set(experiment.CLAIMS)
    sizes = {name: len(values) for name, values in result.samples.items()}
    assert sizes == {"closed-form-simulated": experiment._NUM_SEEDS, "closed-form-engine": 1}
    # A step of the scheduler is a step of the closed form, whatever it takes in seconds.
    for row in gains.itertuples():
        assert row.gain_in_steps == pytest.approx(row.closed_form_of_drawn, rel=0.03)
    simulated = gains[gains["on"] != "bundled model, real engine"]
    assert simulated["gain"].tolist() == pytest.approx(simulated["closed_form_in_s"], rel=0.1)
    figure = experiment.plot(result)
    assert figure.data.equals(gains)
    assert figure.to_png()[:4] == b"\x89PNG"
