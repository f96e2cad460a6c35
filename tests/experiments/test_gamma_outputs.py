"""The closed form against what it says in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.experiments.gamma_outputs import GammaOutputs, closed_form, harmonic

CVS = st.floats(0.1, 2.0)


@given(mean=st.floats(2, 300), cv=CVS, unit=st.floats(0.001, 0.999))
def test_a_quantile_is_the_shortest_length_that_enough_outputs_do_not_exceed(
    mean: float, cv: float, unit: float
) -> None:
    lengths = GammaOutputs(mean, cv)
    (found,) = lengths.quantile(np.array([unit]))
    below, up_to = lengths.at_most(np.array([found - 1, found]))
    assert up_to >= unit - 1e-9
    assert found == 1 or below < unit + 1e-9


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 2.0])
def test_outputs_have_the_mean_and_spread_that_they_say(cv: float) -> None:
    drawn = GammaOutputs(200.0, cv).quantile((np.arange(100_000) + 0.5) / 100_000)
    assert drawn.mean() == pytest.approx(200, rel=0.01)
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.03, abs=1e-9)


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_the_closed_form_is_the_mean_of_the_longest_over_the_mean(cv: float) -> None:
    lengths = GammaOutputs(50.0, cv)
    drawn = lengths.quantile(np.random.default_rng(0).random((40_000, 16)))
    expected = drawn.max(axis=1).mean() / drawn.mean()
    assert closed_form(lengths, 16) == pytest.approx(expected, rel=0.01)


@given(num=st.integers(1, 200))
def test_the_closed_form_of_exponential_lengths_is_harmonic(num: int) -> None:
    assert closed_form(GammaOutputs(2000.0, 1.0), num) == pytest.approx(harmonic(num), rel=2e-3)
