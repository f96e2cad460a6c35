"""Fits against machines whose cost is known."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest

from toolkit.errors import RecordError
from toolkit.record import Record
from toolkit.simulate import Arrival, FittedCost, Machine, fit, predicted_steps
from toolkit.simulate.fit import TERMS, step_periods

TRUTH = FittedCost((2e-3, 4e-5, 3e-8, 2e-7, 1e-4), 0, None, "made up")


def loaded(cost_model, *, num_requests: int = 60, seed: int = 0, level: str = "tokens") -> Record:
    """A run of mixed batches on a machine with this cost."""
    rng, due_s, arrivals = random.Random(seed), 0.0, []
    for number in range(num_requests):
        due_s += rng.expovariate(30.0)
        arrivals.append(Arrival(number, due_s, rng.randrange(5, 600), rng.randrange(2, 60)))
    machine = Machine("opt-125m", "A100-40GB", cost_model=cost_model)
    return machine.run(arrivals, level=level, max_num_batched_tokens=256, keeps_journal=True)


def test_a_cost_of_the_fitted_form_is_found_exactly():
    fitted = fit(loaded(TRUTH))
    assert fitted.coefficients == pytest.approx(TRUTH.coefficients, rel=1e-6)
    assert fitted.held_out_error == pytest.approx(0, abs=1e-9)
    assert sum(fitted.shares) == pytest.approx(1)


def test_several_runs_are_fitted_as_one():
    records = [loaded(TRUTH), loaded(TRUTH, seed=1)]
    fitted = fit(records)
    assert fitted.num_steps == sum(fit(each).num_steps for each in records)
    assert fitted.coefficients == pytest.approx(TRUTH.coefficients, rel=1e-6)


def test_durations_that_scatter_are_met_on_average():
    """Least squares on errors in parts of the measured time would come out 15 % low here."""
    rng = np.random.default_rng(0)

    def noisy(work):
        return TRUTH(work) * rng.gamma(12, 1 / 12)

    record = loaded(noisy, num_requests=150)
    steps = predicted_steps(record, fit(record))
    assert steps["predicted_s"].sum() == pytest.approx(steps["measured_s"].sum(), rel=0.03)


def test_no_coefficient_is_negative_though_the_best_fit_had_one():
    def less_for_more_sequences(work):
        return 1e-3 + 1e-4 * work.num_tokens - 5e-6 * work.num_seqs

    assert min(fit(loaded(less_for_more_sequences)).coefficients) >= 0


def test_an_error_that_the_form_cannot_hold_shows_in_what_is_held_out():
    def stepwise(work):
        return 1e-3 * (1 + work.num_tokens // 64)

    assert fit(loaded(stepwise)).held_out_error > 0.01


def test_only_the_steps_that_are_given_are_fitted_to():
    record = loaded(TRUTH)
    assert fit(record, start_step=10, end_step=60).num_steps == 50


def test_a_cost_model_is_asked_about_the_work_that_was_recorded():
    asked = []

    def listening(work):
        asked.append(work)
        return TRUTH(work)

    record = loaded(listening)
    seen = list(asked)
    steps = predicted_steps(record, listening)
    assert steps["predicted_s"].to_numpy() == pytest.approx([TRUTH(work) for work in seen])
    assert [tuple(map(float, work)) for work in asked[len(seen) :]] == [
        tuple(map(float, work)) for work in seen
    ]


def test_a_period_lasts_until_the_next_step_unless_nobody_was_left():
    record = Machine("opt-125m", "A100-40GB", cost_model=lambda work: 0.5).run(
        [Arrival(0, 0.0, 8, 2), Arrival(1, 7.0, 8, 1)]
    )
    assert step_periods(record).tolist() == [0.5, 0.5, 0.5]


def test_a_pause_is_no_part_of_a_step(monkeypatch):
    record = Machine("opt-125m", "A100-40GB", cost_model=lambda work: 0.5).run(
        [Arrival(0, 0.0, 8, 3)]
    )
    steps = record.steps.assign(start_s=[0.0, 0.5, 9.0])
    events = pd.DataFrame({"kind": ["paused"], "time_s": [0.75]})
    monkeypatch.setattr(Record, "steps", steps)
    monkeypatch.setattr(Record, "events", events)
    assert step_periods(record).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (lambda: loaded(TRUTH, num_requests=1), "too few"),
        (lambda: loaded(TRUTH, level="requests"), "no chunks"),
    ],
)
def test_what_cannot_be_fitted_to_is_refused(record, says):
    with pytest.raises(RecordError, match=says):
        fit(record())


def test_it_prints_its_coefficients_and_how_far_off_it_is():
    fitted = fit(loaded(TRUTH))
    told = repr(fitted)
    assert "opt-125m on A100-40GB" in told
    assert "held out" in told
    assert all(name in told for name, *_ in TERMS)
    assert "not validated" in repr(TRUTH)
    assert "no use" not in told


def test_a_fit_that_is_far_off_says_that_it_is_of_no_use_and_small_coefficients_are_told():
    useless = FittedCost((0.01, 3.5e-9, 0.0, 0.0, 0.0), 100, 1.76, "an example")
    for told in (repr(useless), useless._repr_html_()):
        assert "176.0% mean relative error, held out: of no use for predictions" in told
        assert "3.5e-09" in told
