"""Length distributions: published moments after the cut, and surrogates that say they are ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.experiments import (
    Alpaca,
    ArXiv,
    DistServeHumanEval,
    DistServeLongBench,
    DistServeShareGPT,
    Fixed,
    LogNormal,
    OpenChatShareGPT4,
    ShareGPT,
    Uniform,
)
from toolkit.experiments.workloads.lengths import CutLogNormal, Lengths
from toolkit.experiments.workloads.randomness import uniforms
from toolkit.experiments.workloads.surrogates import Surrogate

NUM = 100_000
MEANS = {
    ShareGPT(): (161.31, 337.99),
    Alpaca(): (19.31, 58.45),
    DistServeShareGPT(): (755, 200),
    DistServeHumanEval(): (171, 98),
    DistServeLongBench(): (1738, 90),
}
MEDIANS = {OpenChatShareGPT4(): (1730, 5696, 415), ArXiv(): (7059, 12985, 208)}


def draw(lengths: Lengths, num: int = NUM, seed: int = 0) -> tuple[Any, Any]:
    return lengths.draw(
        uniforms(seed, "prompt lengths", num), uniforms(seed, "output lengths", num)
    )


@settings(max_examples=50)
@given(
    share=st.floats(0.002, 0.98),
    sigma=st.floats(0.05, 3.0),
    longest=st.integers(3, 5000),
    seed=st.integers(0, 99),
)
def test_a_cut_lognormal_has_the_mean_asked_for(
    share: float, sigma: float, longest: int, seed: int
) -> None:
    mean = 1 + share * (longest - 1)
    cut = CutLogNormal.with_mean(mean, sigma=sigma, longest=longest)
    assert cut.mean == pytest.approx(mean, rel=1e-6)
    drawn = cut.quantile(uniforms(seed, "x", 500))
    assert 1 <= drawn.min() <= drawn.max() <= longest


def test_the_mean_is_that_of_what_is_drawn() -> None:
    cut = CutLogNormal.with_mean(338, sigma=1.0, longest=1024)
    assert cut.quantile(uniforms(0, "x", NUM)).mean() == pytest.approx(338, rel=0.01)


@settings(max_examples=50)
@given(median=st.floats(2, 900), sigma=st.floats(0.1, 3.0))
def test_a_cut_lognormal_has_the_median_asked_for(median: float, sigma: float) -> None:
    cut = CutLogNormal.with_median(median, sigma=sigma, longest=1024)
    below, above = cut.quantile(np.array([0.5 - 1e-6, 0.5 + 1e-6]))
    assert below - 1 <= median <= above


@pytest.mark.parametrize(("lengths", "means"), MEANS.items(), ids=repr)
def test_surrogates_have_the_published_means(
    lengths: Surrogate, means: tuple[float, float]
) -> None:
    prompt, output = draw(lengths)
    assert prompt.mean() == pytest.approx(means[0], rel=0.02)
    assert output.mean() == pytest.approx(means[1], rel=0.02)
    assert (prompt + output).max() <= lengths.max_tokens
    assert "surrogate" in repr(lengths)
    assert "arXiv" in repr(lengths)


@pytest.mark.parametrize(("lengths", "published"), MEDIANS.items(), ids=repr)
def test_surrogates_have_the_published_quantiles(
    lengths: Surrogate, published: tuple[float, float, float]
) -> None:
    prompt, output = draw(lengths)
    assert np.median(prompt) == pytest.approx(published[0], rel=0.02)
    assert np.percentile(prompt, 90) == pytest.approx(published[1], rel=0.02)
    assert np.median(output) == pytest.approx(published[2], rel=0.02)
    assert output.min() >= 1
    assert (prompt + output).max() <= lengths.max_tokens


def test_sharegpt_fills_a_reservation_of_2048_slots_as_the_paper_says() -> None:
    """Fig. 2 of the PagedAttention paper: 20.4 % token states under Orca (Max).

    A request in progress weighs as much as it has steps to do; on its way it holds its prompt and
    half of its output on average.
    """
    prompt, output = (lengths.astype(float) for lengths in draw(ShareGPT()))
    held = (output * (prompt + output / 2)).sum() / output.sum()
    assert held / 2048 == pytest.approx(0.204, abs=0.005)


def test_uniform_lengths_reach_both_ends() -> None:
    prompt, output = draw(Uniform((3, 5), (7, 7)))
    assert np.unique(prompt, return_counts=True)[0].tolist() == [3, 4, 5]
    assert np.bincount(prompt)[3:] / NUM == pytest.approx(1 / 3, rel=0.03)
    assert set(output) == {7}


def test_fixed_lengths_are_fixed() -> None:
    assert [set(lengths) for lengths in draw(Fixed(9, 4), 5)] == [{9}, {4}]


def test_a_lognormal_takes_one_sigma_and_limit_or_a_pair() -> None:
    prompt, output = draw(LogNormal(50, 20, sigma=(0.5, 1.5), longest=(200, 100)))
    assert prompt.mean() == pytest.approx(50, rel=0.02)
    assert output.mean() == pytest.approx(20, rel=0.02)
    assert (prompt.max(), output.max()) == (200, 100)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Fixed(0, 1), "at least one token"),
        (lambda: Uniform((5, 3), (1, 1)), "no range"),
        (lambda: LogNormal(2000, 10), "1 < mean < longest"),
        (lambda: LogNormal(100, 10, sigma=0), "sigma > 0"),
        (lambda: CutLogNormal.with_median(50, longest=100), "p90= or sigma="),
        (lambda: CutLogNormal.with_median(50, p90=99.9, longest=100), "no lognormal cut at 100"),
    ],
)
def test_what_is_no_distribution_is_refused(make: Any, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        make()
