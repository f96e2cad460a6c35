"""Two runs of one workload: paired differences, how sure they are, who pays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.experiments.made_runs import made_run
from toolkit.errors import InvalidParameter, UnlikeRuns
from toolkit.experiments.studies.comparison import compare, jain_index
from toolkit.record.intervals import paired_intervals

LUCK = np.random.default_rng(0)
WAITS = LUCK.exponential(1.0, 200)


def test_a_run_equals_itself() -> None:
    found = compare(made_run(WAITS), made_run(WAITS))
    assert (found.table["difference"] == 0).all()
    assert (found.table[["low", "high"]] == 0).all().all()
    assert (found.table["ratio"] == 1).all()


def test_a_constant_gain_is_found_whatever_the_noise() -> None:
    found = compare(made_run(WAITS + 0.5), made_run(WAITS))
    assert found.table["difference"].to_numpy() == pytest.approx([-0.5] * 4)
    assert found.table.loc["mean", ["low", "high"]].tolist() == pytest.approx([-0.5, -0.5])
    assert "chance" not in found.summary()


def test_a_difference_of_luck_alone_may_be_chance() -> None:
    other = np.random.default_rng(1).exponential(1.0, 200)
    found = compare(made_run(WAITS), made_run(other))
    assert found.table.loc["mean", "low"] < 0 < found.table.loc["mean", "high"]
    assert "may be chance" in found.summary()


def test_blocks_of_time_are_drawn_whole() -> None:
    # Ten busy spells: in each the same delay for all. 200 requests are ten pieces of news.
    spells = np.repeat(np.random.default_rng(2).normal(0, 1, 10), 20)
    base = np.full(200, 5.0)
    blocks = compare(made_run(base), made_run(base + spells), num_blocks=10).table.loc["mean"]
    alone = compare(made_run(base), made_run(base + spells), num_blocks=200).table.loc["mean"]
    assert blocks["high"] - blocks["low"] > 2 * (alone["high"] - alone["low"]) * 0.8


def test_requests_are_paired_by_arrival_not_by_row() -> None:
    a, b = made_run(WAITS), made_run(WAITS + 1)
    b.requests = b.requests.sample(frac=1, random_state=0)
    assert compare(a, b).pairs["difference"].to_numpy() == pytest.approx(np.ones(200))


def test_only_what_finished_in_both_counts() -> None:
    a, b = made_run(WAITS), made_run(WAITS)
    a.requests.loc[0, "status"] = "failed"
    b.requests.loc[1, "status"] = "aborted"
    assert compare(a, b).pairs["arrival_id"].tolist() == list(range(2, 200))


def test_other_workloads_are_refused() -> None:
    with pytest.raises(UnlikeRuns, match="the requests themselves differ"):
        compare(made_run(WAITS), made_run(WAITS, fingerprint="other"))
    faster = made_run(WAITS, fingerprint="other")
    faster.workload_description["repr"] = "Workload(Poisson(4.0))"
    with pytest.raises(UnlikeRuns, match=r"made and Workload\(Poisson\(4.0\)\); give both"):
        compare(made_run(WAITS), faster)


def test_other_settings_are_refused_by_name_unless_allowed() -> None:
    a, b = made_run(WAITS, block_size=16), made_run(WAITS, block_size=32, policy="fair")
    with pytest.raises(
        UnlikeRuns, match=r"block_size \(16, 32\).*allow=\('block_size', 'policy'\)"
    ):
        compare(a, b)
    assert len(compare(a, b, allow=("block_size", "policy")).pairs) == 200


def test_a_metric_that_is_no_time_is_refused() -> None:
    for metric in ("status", "nothing_s", "num_output_tokens"):
        with pytest.raises(InvalidParameter, match="is no time"):
            compare(made_run(WAITS), made_run(WAITS), metric)


def test_nothing_left_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="no request has ttft_s in both"):
        compare(made_run(WAITS), made_run(WAITS), warmup_s=1e6)


def test_the_latency_itself_may_be_the_metric() -> None:
    found = compare(made_run(WAITS), made_run(WAITS + 1), "e2e_s")
    assert found.table.loc["mean", "difference"] == pytest.approx(1.0)


def test_slowdown_is_told_per_tag() -> None:
    tenants = ["a", "b"] * 100
    slower = np.where(np.arange(200) % 2, 1.1, 0.1)
    a = made_run(np.full(200, 0.1), tags={"tenant": tenants})
    b = made_run(slower, tags={"tenant": tenants})
    tags = compare(a, b).tags.set_index("value")
    assert tags.loc["a", "slowdown"] == pytest.approx(1.0)
    assert tags.loc["b", "slowdown"] == pytest.approx(2.0)  # from 1 s to 2 s
    fairness = compare(a, b).fairness
    assert fairness.loc["tags.tenant", "a"] == pytest.approx(1.0)
    assert fairness.loc["tags.tenant", "b"] == pytest.approx(jain_index([10.0, 5.0]))


def test_all_at_once_still_has_intervals() -> None:
    found = compare(made_run(WAITS, every_s=0.0), made_run(WAITS + 0.5, every_s=0.0))
    assert found.num_blocks == 20
    assert found.table.loc["mean", "low"] == pytest.approx(0.5)


def test_it_reads_in_a_cell_and_in_a_terminal() -> None:
    tags = {"tenant": ["a", "b"] * 100}
    found = compare(made_run(WAITS, tags=tags), made_run(WAITS * 2, tags=tags))
    assert "2.000 times" in repr(found).splitlines()[0]
    assert "<table" in found._repr_html_()
    assert "slowdown" in found._repr_html_()


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20))
def test_jains_index_lies_between_one_nth_and_one(shares: list[float]) -> None:
    assert 1 / len(shares) - 1e-9 <= jain_index(shares) <= 1 + 1e-9


@settings(max_examples=8)
@given(st.integers(0, 1_000), st.integers(2, 12))
def test_paired_intervals_hold_the_difference_of_shifted_values(seed: int, num: int) -> None:
    before = np.random.default_rng(seed).normal(size=60)
    intervals = paired_intervals(before, before + 3.0, np.arange(60) % num, (50, 99))
    for low, high in intervals:
        assert low == pytest.approx(3.0)
        assert high == pytest.approx(3.0)


def test_one_owner_says_nothing_of_chance() -> None:
    values = np.arange(5.0)
    intervals = paired_intervals(values, values, np.zeros(5, "int64"), (50,))
    assert all(np.isnan(bound) for interval in intervals for bound in interval)


def test_requests_that_are_no_pair_are_told() -> None:
    a, b = made_run(np.full(200, 1.0)), made_run(np.full(200, 1.0))
    b.requests.loc[20:, "status"] = "failed"
    a.requests.loc[190:, "status"] = "failed"
    compared = compare(a, b)
    assert compared.left_out == {"only in a": 170, "only in b": 0, "in neither": 10}
    assert "20 pairs; left out: 170 finished only in a, 10 finished in neither" in repr(compared)
    whole = made_run(np.full(200, 1.0))
    assert "left out" not in compare(whole, whole).summary()


def test_fairness_counts_each_runs_own_tokens() -> None:
    a = made_run(np.full(40, 1.0), tpot_s=0.0)
    b = made_run(np.full(40, 1.0), tpot_s=0.0)
    b.requests["num_output_tokens"] = np.where(np.arange(40) < 20, 10, 0)
    assert compare(a, b).fairness.at["requests", "a"] == pytest.approx(1.0)
    assert compare(a, b).fairness.at["requests", "b"] == pytest.approx(0.5)
