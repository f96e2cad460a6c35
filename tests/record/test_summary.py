"""The field's metrics: by hand, and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.record.tables import answers
from toolkit.errors import InvalidParameter
from toolkit.record.intervals import (
    grouped_percentile_intervals,
    mean_interval,
    percentile_interval,
    share_interval,
)
from toolkit.record.summary import summarise


def test_two_answers_by_hand():
    requests, tokens = answers([1.0, 2.0], [0.5, 1.5], [[0.1, 0.3], [0.2]])
    found = summarise(requests, tokens)
    assert found.loc["ttft_s", "mean"] == pytest.approx(1.0)
    assert found.loc["ttft_s", "std"] == pytest.approx(np.std([0.5, 1.5], ddof=1))
    assert found.loc["tpot_s", "mean"] == pytest.approx(0.2)
    assert found.loc["itl_s", "num"] == 3
    assert found.loc["itl_s", "mean"] == pytest.approx(0.2)
    assert found.loc["e2e_s", "p50"] == pytest.approx((0.9 + 1.7) / 2)
    # From the first arrival at 1.0 to the last token at 3.7.
    assert found.loc["requests_per_s", "mean"] == pytest.approx(2 / 2.7)
    assert found.loc["output_tokens_per_s", "mean"] == pytest.approx(5 / 2.7)
    assert found.loc["total_tokens_per_s", "mean"] == pytest.approx(25 / 2.7)
    assert found.loc["finished", "num"] == 2


def test_percentiles_are_numpys():
    generator = np.random.default_rng(1)
    ttfts = generator.exponential(1.0, 500)
    gaps = [list(generator.exponential(0.1, 5)) for _ in ttfts]
    found = summarise(*answers(list(np.arange(500.0)), list(ttfts), gaps))
    for percent in (50, 90, 95, 99):
        assert found.loc["ttft_s", f"p{percent}"] == pytest.approx(np.percentile(ttfts, percent))
        assert found.loc["itl_s", f"p{percent}"] == pytest.approx(
            np.percentile(np.concatenate(gaps), percent)
        )
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        for of in ("mean", "p50", "p90", "p95"):
            row = found.loc[name]
            assert row[f"{of}_low"] < row[of] < row[f"{of}_high"]


def test_a_request_is_good_when_it_keeps_every_limit():
    requests, tokens = answers(
        [0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.9, 0.1], [[0.1], [0.5], [0.1], []]
    )
    requests.loc[3, "status"] = "failed"
    found = summarise(requests, tokens, slo={"ttft_s": 0.5, "tpot_s": 0.2})
    assert found.loc["goodput_share", "num"] == 1
    assert found.loc["goodput_share", "mean"] == pytest.approx(1 / 4)
    assert found.loc["goodput_per_s", "mean"] == pytest.approx(1 / 1.0)
    assert found.loc["failed", "num"] == 1


def test_groups_are_summed_up_apart():
    requests, tokens = answers(
        [0.0, 0.0, 1.0], [1.0, 2.0, 4.0], [[], [], []], **{"tags.tenant": ["a", "b", "a"]}
    )
    found = summarise(requests, tokens, by="tags.tenant")
    assert found.loc[("a", "ttft_s"), "mean"] == pytest.approx(2.5)
    assert found.loc[("b", "ttft_s"), "num"] == 1
    assert found.index.names == ["tags.tenant", "metric"]


def test_the_warm_up_is_left_out_of_latencies_and_its_tokens_out_of_rates():
    requests, tokens = answers([5.0, 6.0, 9.0], [0.5, 3.5, 0.5], [[0.1], [0.5], [0.5]])
    found = summarise(requests, tokens, warmup_s=3.0)
    assert found.loc["ttft_s", "num"] == 1
    assert found.loc["ttft_s", "mean"] == pytest.approx(0.5)
    # From 9.0, when the first that counts arrived, to 10.0: two ended and 4 tokens came.
    assert found.loc["requests_per_s", "num"] == 2
    assert found.loc["output_tokens_per_s", "mean"] == pytest.approx(4 / 1.0)


def test_tokens_are_those_that_a_request_counts_however_many_pieces_they_came_in():
    """Ten tokens in two pieces, ten in twenty; the warm-up cuts half of either."""
    two, twenty = [1.0], [0.1] * 19
    requests, pieces = answers([0.0, 0.0], [0.5, 0.05], [two, twenty])
    requests["num_output_tokens"] = 10
    duration_s = 0.05 + 19 * 0.1
    found = summarise(requests, pieces)
    assert found.loc["output_tokens_per_s", "num"] == 20
    assert found.loc["output_tokens_per_s", "mean"] == pytest.approx(20 / duration_s)
    assert found.loc["total_tokens_per_s", "num"] == 20 + 2 * 10
    cut = summarise(requests, pieces, warmup_s=1.0)
    assert cut.loc["output_tokens_per_s", "num"] == 10


def test_nothing_recorded_is_no_error():
    requests, _ = answers([0.0], [1.0], [[]])
    found = summarise(requests.iloc[:0], None, slo={"e2e_s": 1})
    assert found.loc["finished", "num"] == 0
    assert np.isnan(found.loc["requests_per_s", "mean"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"slo": {"latency": 1}}, "itl_max_s"),
        ({"slo": {"ttft_s": 0}}, "above 0"),
        ({"by": "tags.nobody"}, "tags.tenant"),
        ({"warmup_s": -1}, "0 or more"),
        ({"warmup_s": "x"}, "number of seconds"),
        ({"slo": {"ttft_s": "x"}}, "number of seconds"),
        ({"slo": ["ttft_s"]}, "limits by name"),
        ({"by": 3}, "no column"),
    ],
)
def test_wrong_wishes_are_named(options: dict, says: str):
    requests, tokens = answers([0.0], [1.0], [[]], **{"tags.tenant": ["a"]})
    with pytest.raises(InvalidParameter, match=says):
        summarise(requests, tokens, **options)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Of 400 samples of 60: about 380; below 365 would be 4 standard deviations off."""
    generator = np.random.default_rng(2)
    median, mean, share = np.log(2.0), 1.0, 0.3
    hits = dict.fromkeys(("median", "mean", "share"), 0)
    for _ in range(400):
        values = np.sort(generator.exponential(1.0, 60))
        low, high = percentile_interval(values, 50)
        hits["median"] += low <= median <= high
        low, high = mean_interval(values)
        hits["mean"] += low <= mean <= high
        low, high = share_interval(int((generator.random(60) < share).sum()), 60)
        hits["share"] += low <= share <= high
    # The bootstrap of a skewed mean is a little too narrow: 92-93 % at this size.
    assert hits["median"] >= 365
    assert hits["mean"] >= 355
    assert hits["share"] >= 365


def test_a_percentile_has_no_upper_bound_where_too_few_values_are():
    values = np.arange(100.0)
    assert np.isnan(percentile_interval(values, 99)[1])
    assert percentile_interval(np.arange(1000.0), 99) == (982.0, 996.0)


def test_gaps_of_one_answer_count_as_one_draw():
    """Two answers, one fast and one slow: no number of gaps makes their median certain."""
    values = np.repeat([0.1, 0.2], 10_000)
    owners = np.repeat([0, 1], 10_000)
    [(low, high)] = grouped_percentile_intervals(values, owners, [50])
    assert (low, high) == (0.1, 0.2)


def test_a_notebook_shows_units_and_intervals_and_no_empty_columns():
    requests, tokens = answers([1.0, 2.0], [0.5, 1.5], [[0.1, 0.3], [0.2]])
    found = summarise(requests, tokens, slo={"ttft_s": 1.0})
    html = found._repr_html_()
    assert "NaN" not in html
    assert "_low" not in html
    assert "1.00 s (" in html
    assert "0.7407 requests/s" in html
    assert "50.0 %" in html
    nothing = summarise(requests.head(0), None)._repr_html_()
    assert "p99" not in nothing
    requests["tags.who"] = ["a", "b"]
    assert ">tags.who</th>" in summarise(requests, tokens, by="tags.who")._repr_html_()
