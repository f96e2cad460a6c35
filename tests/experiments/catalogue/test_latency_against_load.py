"""Knees of curves, and figure 12 in small."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.experiments.catalogue import latency_against_load as experiment
from toolkit.experiments.catalogue.latency_against_load import knee


@given(
    slope=st.floats(0.5, 5),
    at=st.floats(1.1, 8.9),
    limit_s=st.floats(0.01, 10),
)
def test_the_knee_of_an_exponential_is_exact(slope: float, at: float, limit_s: float) -> None:
    rates = np.arange(1.0, 10.0)
    assert knee(rates, limit_s * np.exp(slope * (rates - at)), limit_s) == pytest.approx(at)


def test_a_curve_that_stays_on_one_side_has_no_knee() -> None:
    assert math.isnan(knee([1, 2], [0.1, 0.2], limit_s=0.5))
    assert math.isnan(knee([1, 2], [0.6, 0.9], limit_s=0.5))


@pytest.mark.slow
def test_paging_sustains_most_and_the_largest_reservation_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(experiment._DURATIONS_S, "quick", {"sharegpt": 60.0})
    monkeypatch.setitem(experiment._FACTORS, "quick", (0.5, 2.5))
    result = experiment.run(progress=False)
    knees = result.data["knees"].set_index("allocator")["rate"].dropna()
    order = [name for name in experiment.ALLOCATORS if name in knees.index]
    assert knees.loc[order].is_monotonic_increasing
    assert set(result.measured) == set(experiment.CLAIMS)
    figure = experiment.plot(result)
    assert len(figure.data) == len(result.data["curves"])
    assert figure.to_png()[:4] == b"\x89PNG"
