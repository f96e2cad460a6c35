"""Sweeps: a row per run, the same luck for all, nothing run twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from toolkit.errors import InvalidConfig
from toolkit.experiments.studies.cells import labelled
from toolkit.experiments.studies.sweeping import sweep
from toolkit.experiments.workloads.arrivals import AtOnce, Poisson
from toolkit.experiments.workloads.lengths import Fixed
from toolkit.experiments.workloads.workload import Workload
from toolkit.simulate import Machine, StepWork

NUM_RUNS = {"steps": 0}


def cost(work: StepWork) -> float:
    NUM_RUNS["steps"] += 1
    return 0.01


def a_machine() -> Machine:
    return Machine("opt-125m", "A100-40GB", cost_model=cost)


def a_load() -> Workload:
    return Workload(Poisson(5.0), Fixed(8, 3), num_requests=12)


def shortest(request: Any, view: Any) -> int:
    return int(request.num_prompt_tokens)


def test_there_is_a_row_per_policy_rate_and_seed() -> None:
    df = sweep(a_load(), a_machine(), policy=["fcfs", shortest], rate=[2, 8], seeds=range(2))
    keys = df[["policy", "rate", "seed"]]
    assert len(df) == 8
    assert not keys.duplicated().any()
    assert set(df["policy"]) == {"fcfs", "shortest"}
    assert set(df["rate"]) == {2.0, 8.0}
    assert (df["num_finished"] == 12).all()
    assert df[["ttft_s_p99", "tpot_s_mean", "output_tokens_per_s"]].notna().all().all()


def test_the_same_sweep_gives_the_same_table() -> None:
    first, second = (sweep(a_load(), a_machine(), seeds=range(2)) for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert first.loc[0, "ttft_s_mean"] != first.loc[1, "ttft_s_mean"]


def test_policies_get_the_same_arrivals() -> None:
    other = {"one": "fcfs", "same": "fcfs"}
    df = sweep(a_load(), a_machine(), policy=other, seeds=[3]).set_index("policy")
    pd.testing.assert_series_equal(df.loc["one"], df.loc["same"], check_names=False)


def test_further_axes_are_options_of_the_run() -> None:
    df = sweep(a_load(), a_machine(), rate=500, seeds=[0], over={"max_num_seqs": [1, 8]})
    slow, fast = df.set_index("max_num_seqs")["e2e_s_mean"]
    assert slow > fast


def test_what_a_folder_keeps_is_not_run_again(tmp_path: Path) -> None:
    first = sweep(a_load(), a_machine(), rate=[2, 4], seeds=[0], folder=tmp_path)
    before = NUM_RUNS["steps"]
    again = sweep(a_load(), a_machine(), rate=[2, 4], seeds=[0], folder=tmp_path)
    assert NUM_RUNS["steps"] == before
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    more = sweep(a_load(), a_machine(), rate=[2, 4, 8], seeds=[0], folder=tmp_path)
    assert NUM_RUNS["steps"] > before
    pd.testing.assert_frame_equal(more.head(2), first, check_exact=True)


def test_what_differs_in_anything_is_another_cell(tmp_path: Path) -> None:
    sweep(a_load(), a_machine(), seeds=[0], folder=tmp_path)
    for change in ({"block_size": 8}, {"policy": shortest}, {"warmup_s": 0.1}, {"rate": 3}):
        num = len(list(tmp_path.iterdir()))
        sweep(a_load(), a_machine(), seeds=[0], folder=tmp_path, **change)
        assert len(list(tmp_path.iterdir())) == num + 1
    other = Machine("opt-125m", "A100-80GB", cost_model=cost)
    sweep(a_load(), other, seeds=[0], folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


def test_a_file_says_what_it_is_of_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    sweep(a_load(), a_machine(), seeds=[0], folder=tmp_path)
    (path,) = tmp_path.iterdir()
    kept = json.loads(path.read_text())
    assert kept["settings"]["workload"] == a_load().fingerprint
    path.write_text("{")
    with pytest.raises(InvalidConfig, match="delete it"):
        sweep(a_load(), a_machine(), seeds=[0], folder=tmp_path)


def test_several_processes_give_the_same_table(tmp_path: Path) -> None:
    one = sweep(a_load(), a_machine(), policy=["fcfs", shortest], seeds=range(3))
    two = sweep(a_load(), a_machine(), policy=["fcfs", shortest], seeds=range(3), processes=2)
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_several_processes_are_for_simulations() -> None:
    with pytest.raises(InvalidConfig, match="serves one load at a time"):
        sweep(a_load(), "http://127.0.0.1:9", processes=2)


def test_a_load_without_a_rate_has_none_to_sweep() -> None:
    crowd = Workload(AtOnce(), Fixed(8, 3), num_requests=3)
    with pytest.raises(InvalidConfig, match="has no rate"):
        sweep(crowd, a_machine(), rate=[1, 2])
    assert len(sweep(crowd, a_machine(), seeds=[0])) == 1


def test_an_axis_needs_values_that_can_be_told_apart() -> None:
    with pytest.raises(InvalidConfig, match="policy is empty"):
        labelled("policy", [])
    with pytest.raises(InvalidConfig, match="the same name"):
        labelled("policy", [lambda request, view: 0, lambda request, view: 1])
    assert list(labelled("policy", "fcfs")) == ["fcfs"]
