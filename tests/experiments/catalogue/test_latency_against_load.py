"""Knees of curves, and figure 12 in small."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.experiments.catalogue import Result
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


def test_each_seed_has_its_ratio_and_a_knee_that_lacks_is_named() -> None:
    rates = {"orca-max": (0.5, math.nan), "orca-oracle": (1.0, 1.0), "paged": (2.0, 1.5)}
    knees = pd.DataFrame(
        [
            {"load": "sharegpt", "allocator": name, "seed": seed, "rate": rate}
            for name, both in rates.items()
            for seed, rate in enumerate(both)
        ]
    )
    samples = experiment._samples(knees)
    assert samples["vllm-fig12-over-oracle"] == [2.0, 1.5]
    assert samples["vllm-fig12-over-max"] == pytest.approx([4.0, math.nan], nan_ok=True)
    over_max, over_oracle = (
        experiment._reason(claim, knees, (0.7, 1.6)) for claim in experiment.CLAIMS
    )
    assert over_max.startswith("Orca (Max): no knee from 0.7 to 1.6 times the paper's; ")
    assert "no knee" not in over_oracle


def test_a_knee_that_was_not_found_is_told_by_the_rates_that_were_tried() -> None:
    latencies = {0: (0.1, 0.3), 1: (0.1, 0.15), 2: (0.3, 0.4)}
    curves = pd.DataFrame(
        [
            {"load": "sharegpt", "allocator": "orca-pow2", "seed": seed, "rate": rate}
            | {"norm_latency_s_mean": latency, "limit_s": 0.2}
            for seed, both in latencies.items()
            for rate, latency in zip((0.4, 1.2), both, strict=True)
        ]
    )
    knees = pd.DataFrame(
        [
            {"load": "sharegpt", "allocator": "orca-pow2", "seed": seed, "rate": rate}
            | {"limit_s": 0.2, "paper_rate": 0.75}
            for seed, rate in enumerate((0.9, math.nan, math.nan))
        ]
    )
    data = {"curves": curves, "knees": knees}
    table = experiment.knee_table(Result("latency_against_load", "quick", data, {}))
    assert table.loc[("sharegpt", "Orca (Pow2)")].to_dict() == {
        "seed 0": "0.90",
        "seed 1": "> 1.2",
        "seed 2": "< 0.4",
        "paper": 0.75,
    }


@pytest.mark.slow
def test_paging_sustains_most_and_the_largest_reservation_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(experiment._DURATIONS_S, "quick", {"sharegpt": 60.0})
    monkeypatch.setitem(experiment._FACTORS, "quick", (0.5, 2.5))
    monkeypatch.setattr(experiment, "_NUM_SEEDS", 1)
    result = experiment.run(progress=False)
    knees = result.data["knees"].set_index("allocator")["rate"]
    assert knees.notna().all()
    assert list(knees.index) == list(experiment.ALLOCATOR_NAMES)
    assert knees.is_monotonic_increasing
    assert result.measured["vllm-fig12-over-max"] == pytest.approx(
        knees["paged"] / knees["orca-max"]
    )
    assert set(result.measured) == set(result.samples) == set(experiment.CLAIMS)
    figure = experiment.plot(result)
    assert len(figure.data) == len(result.data["curves"])
    assert (result.data["curves"]["limit_s"] < experiment.LIMIT_S).all()
    assert figure.to_png()[:4] == b"\x89PNG"
