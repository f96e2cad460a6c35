"""The field's metrics on numbers made by hand, and what holds of them whatever the numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InvalidParameter
from toolkit.experiments import metrics
from toolkit.experiments.metrics import Window


def requests(*rows: tuple[float, list[float]], **columns: list[Any]) -> pd.DataFrame:
    """A table of finished requests, each with when it was scheduled and when its tokens came."""
    table = pd.DataFrame(
        {
            "arrival_id": range(len(rows)),
            "status": "finished",
            "scheduled_s": [scheduled_s for scheduled_s, _ in rows],
            "first_token_s": [times[0] if times else math.nan for _, times in rows],
            "last_token_s": [times[-1] if times else math.nan for _, times in rows],
            "num_prompt_tokens": 5,
            "num_output_tokens": [len(times) for _, times in rows],
        }
    )
    table["finished_s"] = table["last_token_s"]
    table["ttft_s"] = table["first_token_s"] - table["scheduled_s"]
    table["e2e_s"] = table["last_token_s"] - table["scheduled_s"]
    gaps = (table["num_output_tokens"] - 1).where(table["num_output_tokens"] > 1)
    table["tpot_s"] = (table["last_token_s"] - table["first_token_s"]) / gaps
    return table.assign(**columns)


def tokens(*rows: tuple[float, list[float]]) -> pd.DataFrame:
    cells = [
        (arrival_id, index, time_s)
        for arrival_id, (_, times) in enumerate(rows)
        for index, time_s in enumerate(times)
    ]
    return pd.DataFrame(cells, columns=["arrival_id", "index", "time_s"])


TWO = ((10.0, [10.2, 10.3, 10.5]), (11.0, [11.4, 12.0]))


def test_the_metrics_of_two_requests_are_vllms() -> None:
    table = metrics.summarize(requests(*TWO), tokens(*TWO))
    assert table.at["ttft_s", "mean"] == pytest.approx(0.3)
    assert table.at["ttft_s", "p99"] == pytest.approx(0.398)
    assert table.at["tpot_s", "mean"] == pytest.approx((0.15 + 0.6) / 2)
    assert table.at["itl_s", "p50"] == pytest.approx(0.2)  # of 0.1, 0.2 and 0.6, pooled
    assert table.at["itl_s", "mean"] == pytest.approx(0.3)
    assert table.at["e2e_s", "mean"] == pytest.approx(0.75)
    assert table.at["requests_per_s", "mean"] == pytest.approx(2 / 2.0)
    assert table.at["output_tokens_per_s", "mean"] == pytest.approx(5 / 2.0)
    assert table.at["total_tokens_per_s", "mean"] == pytest.approx(15 / 2.0)


def test_guidellms_time_per_token_includes_the_first() -> None:
    table = metrics.summarize(requests(*TWO), tokens(*TWO), definition="guidellm")
    assert table.at["tpot_s", "mean"] == pytest.approx((0.5 / 3 + 1.0 / 2) / 2)
    assert table.at["itl_s", "mean"] == pytest.approx(0.3)
    with pytest.raises(InvalidParameter, match="vllm, guidellm"):
        metrics.summarize(requests(*TWO), definition="mine")


def test_one_token_has_no_time_per_token_for_vllm() -> None:
    one = ((0.0, [0.5]),)
    table = metrics.summarize(requests(*one), tokens(*one))
    assert (table.at["ttft_s", "num"], table.at["tpot_s", "num"], table.at["itl_s", "num"]) == (
        1,
        0,
        0,
    )


def test_tokens_may_come_in_any_order_of_rows() -> None:
    shuffled = tokens(*TWO).sample(frac=1.0, random_state=3)
    table = metrics.summarize(requests(*TWO), shuffled)
    assert table.at["itl_s", "num"] == 3
    assert table.at["itl_s", "mean"] == pytest.approx(0.3)


def test_good_is_what_keeps_all_limits() -> None:
    rows = (*TWO, (12.0, [14.0, 14.1]), (13.0, []))
    table = requests(*rows, status=["finished"] * 3 + ["failed"])
    slo = {"ttft_s": 0.5, "tpot_s": 0.2}
    assert metrics.attainment(table, slo) == 1 / 4
    assert metrics.goodput(table, slo) == pytest.approx(1 / 4.1)
    assert metrics.attainment(table, {"ttft_s": 0.5}) == 2 / 4
    assert metrics.attainment(table, {"ttft_s": 0.5}, warmup_s=0.5) == 1 / 3
    summary = metrics.summarize(table, slo=slo)
    assert summary.at["goodput_share", "mean"] == 1 / 4
    assert summary.at["goodput_per_s", "mean"] == pytest.approx(1 / 4.1)
    with pytest.raises(InvalidParameter, match="ttft"):
        metrics.attainment(table, {"ttft": 0.5})
    assert math.isnan(metrics.goodput(table.head(0), slo))


def test_normalized_latency_is_a_mean_of_quotients() -> None:
    table = requests(*TWO, (12.0, []), status=["finished", "finished", "failed"])
    assert metrics.normalized_latency(table) == pytest.approx((0.5 / 3 + 1.0 / 2) / 2)


def test_the_steady_window_leaves_out_ramp_and_drain() -> None:
    rows = [(float(number), [number + 1.0, number + 2.0]) for number in range(10)]
    assert metrics.steady_window(requests(*rows)) == (2.0, 9.0)
    assert math.isnan(metrics.steady_window(requests(*rows[:2])).start_s)


@pytest.mark.parametrize("service_s", [0.5, 2.0])
def test_a_queue_grows_by_the_rate_less_what_is_served(service_s: float) -> None:
    """One server, a request a second: above capacity the queue grows by 1 - 1 / service_s."""
    ends = []
    for number in range(200):
        ends.append(max(ends[-1] if ends else 0.0, float(number)) + service_s)
    rows = [(float(number), [end_s]) for number, end_s in enumerate(ends)]
    growth = metrics.queue_growth(requests(*rows), Window(20.0, 199.0)).per_s
    assert growth == pytest.approx(max(0.0, 1 - 1 / service_s), abs=0.01)


def test_requests_that_never_ended_stay_in_the_queue() -> None:
    table = requests(*[(float(number), []) for number in range(20)], status=["aborted"] * 20)
    assert metrics.queue_growth(table, Window(0.0, 20.0)).per_s == pytest.approx(1.0)


def test_intervals_know_that_neighbours_are_alike() -> None:
    """Ten busy and ten quiet stretches: twenty draws of a coin, not two thousand."""
    generator = np.random.default_rng(0)
    slow = np.repeat(generator.permutation([0.1] * 10 + [1.0] * 10), 100)
    rows = [(number * 0.1, [number * 0.1 + late_s]) for number, late_s in enumerate(slow)]
    table = metrics.summarize(requests(*rows))
    width = table.at["ttft_s", "mean_high"] - table.at["ttft_s", "mean_low"]
    expected = 2 * 1.96 * 0.45 / math.sqrt(20)
    assert width == pytest.approx(expected, rel=0.35)
    assert table.at["ttft_s", "p50_low"] == pytest.approx(0.1)
    assert table.at["ttft_s", "p50_high"] == pytest.approx(1.0)


def test_what_came_all_at_once_has_intervals_too() -> None:
    rows = [(0.0, [1.0 + number]) for number in range(100)]
    table = metrics.summarize(requests(*rows))
    assert table.at["ttft_s", "p50_low"] < 50.5 < table.at["ttft_s", "p50_high"]


@settings(max_examples=25)  # each takes some 30 ms
@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.lists(st.floats(0.001, 5), min_size=1, max_size=5)),
        min_size=1,
        max_size=40,
    )
)
def test_what_holds_of_any_load(load: list[tuple[float, list[float]]]) -> None:
    rows = [(due_s, [float(t) for t in due_s + np.cumsum(gaps)]) for due_s, gaps in load]
    table = requests(*rows)
    summary = metrics.summarize(table, tokens(*rows), slo={"e2e_s": 3.0})
    assert summary.at["itl_s", "num"] == sum(len(times) - 1 for _, times in rows)
    for name in ("ttft_s", "e2e_s"):
        row = summary.loc[name]
        assert row["p50"] <= row["p90"] <= row["p95"] <= row["p99"]
        for figure in ("mean", "p50", "p99"):
            assert not row[f"{figure}_low"] > row[f"{figure}_high"]
    assert summary.at["goodput_share", "mean"] == metrics.attainment(table, {"e2e_s": 3.0})
    assert summary.at["goodput_per_s", "mean"] == pytest.approx(
        metrics.goodput(table, {"e2e_s": 3.0}), nan_ok=True
    )
