"""Latency against load: the table that is drawn, the knee, the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.experiments import plots
from toolkit.experiments.curves import curve_table, knee, latency_curves


def a_sweep() -> pd.DataFrame:
    rows = [
        {
            "policy": policy,
            "rate": rate,
            "seed": seed,
            "ttft_s_p99": (1 + seed) * scale / (10 - rate),
        }
        for policy, scale in (("fcfs", 1.0), ("mine", 0.5))
        for rate in (2.0, 4.0, 6.0, 8.0, 9.0, 9.9)
        for seed in range(5)
    ]
    return pd.DataFrame(rows)


def test_a_line_is_the_geometric_mean_over_seeds() -> None:
    table = curve_table(a_sweep(), "ttft_s_p99")
    middle = np.exp(np.log(np.arange(1, 6)).mean())
    row = table[(table["policy"] == "mine") & (table["rate"] == 8.0)].iloc[0]
    assert row["ttft_s_p99"] == pytest.approx(0.5 * middle / 2)
    assert row["num"] == 5


def test_a_band_stays_within_what_was_measured() -> None:
    rows = [{"policy": "fcfs", "rate": 1.0, "a_p50": value} for value in (0.3, 0.31, 9.0, 9.5)]
    (row,) = curve_table(pd.DataFrame(rows), "a_p50").to_dict("records")
    assert (row["low"], row["high"]) == (0.3, 9.5)
    assert 0.3 < row["a_p50"] < 9.5


def test_one_seed_has_no_band_and_what_is_missing_is_left_out() -> None:
    df = a_sweep()
    table = curve_table(df[df["seed"] == 0], "ttft_s_p99")
    assert table["low"].isna().all()
    df.loc[df["seed"] == 1, "ttft_s_p99"] = np.nan
    assert (curve_table(df, "ttft_s_p99")["num"] == 4).all()
    df["ttft_s_p99"] = np.nan
    assert curve_table(df, "ttft_s_p99")["ttft_s_p99"].isna().all()


def test_the_knee_of_a_queue_is_near_its_capacity() -> None:
    rates = np.linspace(0.5, 9.9, 20)
    assert 8.0 <= (knee(rates, 1 / (10 - rates)) or 0) < 9.9


@given(st.floats(0.1, 10), st.floats(0, 10), st.integers(3, 20))
def test_a_straight_line_has_no_knee(slope: float, start: float, num: int) -> None:
    rates = np.arange(1, num + 1)
    assert knee(rates, start + slope * rates) is None


@given(st.lists(st.floats(0.1, 100), min_size=3, max_size=12), st.floats(0.01, 100))
def test_a_knee_does_not_depend_on_units(values: list[float], factor: float) -> None:
    rates = np.arange(len(values))
    rounded = np.round(values, 3)
    assert knee(rates, rounded) == knee(rates, rounded * 2.0 ** round(np.log2(factor)))


def test_what_rises_gently_has_no_knee() -> None:
    bent = np.array([0.0, 0.01, 0.02, 0.1, 0.9])
    assert knee(range(5), 1 + bent) is None
    assert knee(range(5), 1 + 2 * bent) == 3


def test_what_falls_or_is_too_short_has_no_knee() -> None:
    assert knee([1, 2, 3], [3.0, 2.0, 1.0]) is None
    assert knee([1, 2], [1.0, 9.0]) is None
    assert knee([1, 2, 3], [1.0, np.nan, 9.0]) is None


def test_the_picture_has_a_line_and_a_band_per_policy_and_carries_its_data() -> None:
    fig = latency_curves(a_sweep(), title="Ten requests a second")
    (axes,) = fig.axes
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "offered load (requests/s)"
    assert axes.get_ylabel() == "P99 time to first token (s)"
    assert len(axes.collections) == 2  # bands
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["fcfs", "mine", "knee: turns up"]
    assert set(fig.data.columns) == {
        "policy",
        "rate",
        "ttft_s_p99",
        "low",
        "high",
        "num",
        "is_knee",
    }
    assert fig.to_png().startswith(b"\x89PNG")


def test_a_mean_may_be_drawn_and_what_is_not_there_is_named() -> None:
    df = a_sweep().rename(columns={"ttft_s_p99": "norm_latency_s_mean"})
    fig = latency_curves(df, "norm_latency_s", "mean")
    assert fig.axes[0].get_ylabel() == "mean latency per output token (s)"
    with pytest.raises(InvalidConfig, match="no column 'ttft_s_p99'; of p99 it has -"):
        latency_curves(df)


def test_the_text_of_a_narrow_figure_fits() -> None:
    with plots.paper(width_in=3.3):
        fig = latency_curves(a_sweep(), title="Policies")
    fig.draw_without_rendering()
    assert fig.get_size_inches()[0] == pytest.approx(3.3)
    drawn = fig.get_tightbbox()
    assert drawn is not None
    assert drawn.width <= 3.4
