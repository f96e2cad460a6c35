"""The dashboard's bins say what the tables say, however the rows came in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.widgets.lanes import LANES, Lanes

STEP = {
    "start_s": 0.0,
    "duration_s": 0.1,
    "host_gap_s": 0.0,
    "num_running": 1,
    "num_waiting": 0,
    "num_finished": 0,
    "blocks_used": 2,
    "blocks_cached": 1,
    "num_cached_tokens": 0,
    "num_prompt_tokens": 0,
}


def steps(*rows: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame([{**STEP, **row} for row in rows], columns=list(STEP))


def make_lanes(**options: float) -> Lanes:
    return Lanes(**{"num_blocks": 10, "bin_s": 1.0, **options})  # type: ignore[arg-type]


def test_every_lane_is_in_the_table() -> None:
    assert set(make_lanes().table(0, 3)) == {"time_s", *LANES}


def test_a_state_goes_on_until_the_next_step() -> None:
    lanes = make_lanes()
    lanes.add_steps(steps({"start_s": 1.2, "num_waiting": 3}, {"start_s": 4.0, "num_running": 2}))
    table = lanes.table(0, 6)
    assert table["num_running"].tolist() == [0, 1, 1, 1, 2, 2]
    assert table["num_waiting"].tolist() == [0, 3, 3, 3, 0, 0]
    assert table["kv_held"].tolist() == [0, 0.2, 0.2, 0.2, 0.2, 0.2]


def test_who_finished_in_the_last_step_runs_no_longer_in_the_next_bin() -> None:
    lanes = make_lanes()
    lanes.add_steps(steps({"num_running": 2, "num_finished": 2}))
    assert lanes.table(0, 2)["num_running"].tolist() == [2, 0]


def test_a_gap_is_shared_out_over_the_bins_that_it_covers() -> None:
    lanes = make_lanes()
    lanes.add_steps(steps({"start_s": 3.25, "host_gap_s": 2.75}))
    assert lanes.table(0, 4)["host_busy"].tolist() == [0.5, 1, 1, 0.25]


def test_the_hit_rate_is_of_prompt_tokens_and_unknown_without_any() -> None:
    lanes = make_lanes()
    lanes.add_steps(steps({"num_cached_tokens": 30, "num_prompt_tokens": 10}))
    rate = lanes.table(0, 2)["prefix_hit_rate"]
    assert rate[0] == 0.75
    assert np.isnan(rate[1])


def test_first_tokens_and_gaps_are_percentiles_of_their_bin() -> None:
    lanes = make_lanes()
    lanes.add_ttft(first_token_s=[0.1, 0.2, 0.3], ttft_s=[1, 2, 3])
    lanes.add_tokens(sent_s=[1.1, 1.2], itl_s=[0.5, np.nan])
    table = lanes.table(0, 2)
    assert table["ttft_p50_s"][0] == 2
    assert table["ttft_p99_s"][0] == pytest.approx(np.percentile([1, 2, 3], 99))
    assert table["itl_p50_s"][1] == 0.5
    assert np.isnan(table["ttft_p50_s"][1])


def test_what_is_too_old_is_forgotten_and_a_late_row_for_it_ignored() -> None:
    lanes = make_lanes(keep=4)
    lanes.add_tokens(sent_s=np.arange(100.0), itl_s=np.full(100, 0.5))
    lanes.add_tokens(sent_s=[3.0], itl_s=[9.0])
    assert lanes.first_bin == 96
    table = lanes.table(96, 100)
    assert table["output_tokens_per_s"].tolist() == [1, 1, 1, 1]
    assert table["itl_p99_s"].tolist() == [0.5] * 4
    assert sum(map(len, lanes._samples.values())) <= 12


def test_what_held_before_the_oldest_kept_bin_goes_on() -> None:
    lanes = make_lanes(keep=4)
    lanes.add_steps(steps({"start_s": 0.5, "num_running": 7}))
    lanes.add_tokens(sent_s=np.arange(100.0), itl_s=np.full(100, 0.5))
    assert lanes.table(96, 100)["num_running"].tolist() == [7] * 4


moments = st.lists(st.floats(0, 40), max_size=30).map(sorted)


@settings(max_examples=60, deadline=None)
@given(starts=moments, sent=moments, cuts=st.lists(st.integers(0, 30), max_size=4).map(sorted))
def test_rows_in_any_portions_make_the_same_table(
    starts: list[float], sent: list[float], cuts: list[int]
) -> None:
    rng = np.random.default_rng(len(starts))
    rows = steps(
        *(
            {"start_s": start, "num_running": int(rng.integers(9)), "host_gap_s": rng.random()}
            for start in starts
        )
    )
    itl_s = rng.random(len(sent))
    whole, parts = make_lanes(bin_s=0.5), make_lanes(bin_s=0.5)
    whole.add_steps(rows)
    whole.add_tokens(sent_s=sent, itl_s=itl_s)
    edges = [0, *cuts, 30]
    for low, high in pairwise(edges):
        parts.add_steps(rows.iloc[low:high])
        parts.add_tokens(sent_s=sent[low:high], itl_s=itl_s[low:high])
        parts.table(0, 90)  # what is asked for in between changes nothing
    expected, found = whole.table(0, 90), parts.table(0, 90)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name, atol=1e-12)
    assert expected["output_tokens_per_s"].sum() * 0.5 == len(sent)
