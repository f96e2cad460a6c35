"""Arrival processes: the moments they promise, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.experiments import AtOnce, Closed, Constant, Gamma, Poisson, Ramp
from toolkit.experiments.workloads.arrivals import Arrivals
from toolkit.experiments.workloads.randomness import uniforms

NUM = 40_000


def due(arrivals: Arrivals, num: int = NUM, seed: int = 1) -> Any:
    return arrivals.draw(uniforms(seed, "arrivals", num)).due_s


def variation(due_s: Any) -> float:
    gaps = np.diff(due_s)
    return float(gaps.std() / gaps.mean())


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_the_variation_of_gamma_gaps_is_one_over_the_root_of_burstiness(burstiness: float) -> None:
    due_s = due(Gamma(5.0, burstiness))
    assert np.diff(due_s).mean() == pytest.approx(1 / 5, rel=0.03)
    assert variation(due_s) == pytest.approx(1 / math.sqrt(burstiness), rel=0.03)


def test_poisson_is_gamma_of_burstiness_one_and_constant_that_of_infinity() -> None:
    assert due(Poisson(3.0)).tolist() == due(Gamma(3.0, 1.0)).tolist()
    np.testing.assert_allclose(due(Gamma(3.0, math.inf), 9), due(Constant(3.0), 9))
    # The two ways to the same quantiles meet.
    np.testing.assert_allclose(due(Gamma(3.0, 1 + 1e-9), 99), due(Poisson(3.0), 99), rtol=1e-6)


@given(
    rate=st.floats(0.01, 1e4),
    burstiness=st.floats(0.05, 50),
    num=st.integers(1, 300),
    seed=st.integers(0, 2**40),
)
def test_arrivals_begin_at_zero_never_go_back_and_scale_with_the_rate(
    rate: float, burstiness: float, num: int, seed: int
) -> None:
    due_s = due(Gamma(rate, burstiness), num, seed)
    assert due_s[0] == 0
    assert (np.diff(due_s) >= 0).all()
    np.testing.assert_allclose(due(Gamma(2 * rate, burstiness), num, seed), due_s / 2)
    # A longer load begins with the shorter one.
    assert due(Gamma(rate, burstiness), 2 * num, seed)[:num].tolist() == due_s.tolist()


def test_rescaled_arrivals_end_where_the_rate_says() -> None:
    due_s = due(Poisson(4.0, rescale=True), 101)
    assert due_s[-1] == pytest.approx(100 / 4)
    np.testing.assert_allclose(
        due_s / due_s[-1], due(Poisson(4.0), 101) / due(Poisson(4.0), 101)[-1]
    )


@pytest.mark.parametrize("shape", ["linear", "exponential"])
@pytest.mark.parametrize(("first", "last"), [(1.0, 9.0), (9.0, 1.0), (4.0, 4.0)])
def test_a_ramp_has_the_rate_it_should_at_every_time(shape: Any, first: float, last: float) -> None:
    ramp = Ramp(first, last, shape)
    due_s = due(ramp)
    duration_s = (NUM - 1) / ramp.rate
    assert due_s[-1] == pytest.approx(duration_s, abs=4 * math.sqrt(NUM) / last)
    edges = np.linspace(0, duration_s, 11)
    rates = np.histogram(due_s, edges)[0] / np.diff(edges)
    place = (edges[:-1] + edges[1:]) / 2 / duration_s
    expected = first + (last - first) * place
    if shape == "exponential":
        expected = first * (last / first) ** place
    np.testing.assert_allclose(rates, expected, rtol=0.08)


def test_clients_of_a_closed_loop_wait_for_their_own_answers() -> None:
    timing = Closed(3, think_s=0.5).draw(np.zeros(8))
    assert timing.after.tolist() == [-1, -1, -1, 0, 1, 2, 3, 4]
    assert timing.due_s.tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_all_at_once_is_time_zero() -> None:
    assert due(AtOnce(), 3).tolist() == [0, 0, 0]
    assert AtOnce().rate == math.inf


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Poisson(0), "must be positive"),
        (lambda: Poisson(math.inf), r"AtOnce\(\)"),
        (lambda: Constant(-1), "must be positive"),
        (lambda: Gamma(1, 0), "burstiness"),
        (lambda: Ramp(1, math.nan), "must be positive"),
        (lambda: Ramp(1, 2, "steep"), "'linear' or 'exponential'"),  # type: ignore[arg-type]
        (lambda: Closed(0), "at least 1"),
        (lambda: Closed(1, think_s=-1), "0 or more"),
    ],
)
def test_what_is_no_process_is_refused(make: Any, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        make()
