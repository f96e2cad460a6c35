"""The interval of a mean of few seeds."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from toolkit.experiments.intervals import half_width


def test_the_interval_is_students() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    low, high = stats.t.interval(0.95, 3, loc=3.75, scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)


def test_one_value_has_none() -> None:
    assert math.isnan(half_width([1.0]))
