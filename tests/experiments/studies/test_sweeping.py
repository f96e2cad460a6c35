"""Sweeps: a row per run, the same luck for all, nothing run twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from toolkit import LLM
from toolkit.errors import InvalidConfig
from toolkit.experiments.curves import curve_table
from toolkit.experiments.runs.results import Run
from toolkit.experiments.runs.running import run
from toolkit.experiments.studies.cells import labelled
from toolkit.experiments.studies.sweeping import sweep
from toolkit.experiments.workloads.arrivals import AtOnce, Poisson
from toolkit.experiments.workloads.lengths import Fixed, Uniform
from toolkit.experiments.workloads.workload import Workload
from toolkit.simulate import Machine, StepWork


def cost(work: StepWork) -> float:
    return 0.01


def slower(times: float) -> Machine:
    def cost(work: StepWork) -> float:
        return times * 0.01

    return Machine("opt-125m", "A100-40GB", cost_model=cost)


def a_machine() -> Machine:
    return Machine("opt-125m", "A100-40GB", cost_model=cost)


def a_load() -> Workload:
    return Workload(Poisson(5.0), Fixed(8, 3), num_requests=12)


class Weighted:
    """A policy whose parameter no repr shows."""

    name = "weighted"

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def rank(self, request: Any, view: Any) -> int:
        return self.sign * int(request.num_prompt_tokens)


def weighted(sign: int) -> Callable[[Any, Any], int]:
    def mine(request: Any, view: Any) -> int:
        return sign * int(request.num_prompt_tokens)

    return mine


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


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Every run that a sweep of this process makes; one at rate 66 is interrupted."""
    runs = []

    def watched(w: Workload, on: Any, **options: Any) -> Run:
        done = run(w, on, **options)
        done.is_interrupted = w.rate == 66
        runs.append(done)
        return done

    monkeypatch.setattr("toolkit.experiments.studies.cells.run", watched)
    return runs


def test_what_a_folder_keeps_is_not_run_again(tmp_path: Path, ran: list[Run]) -> None:
    machine = a_machine()
    first = sweep(a_load(), machine, rate=[2, 4], seeds=[0], folder=tmp_path)
    again = sweep(a_load(), machine, rate=[2, 4], seeds=[0], folder=tmp_path)
    assert len(ran) == 2
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    more = sweep(a_load(), a_machine(), rate=[2, 4, 8], seeds=[0], folder=tmp_path)
    assert len(ran) == 3
    pd.testing.assert_frame_equal(more.head(2), first, check_exact=True)


def test_an_interrupted_run_ends_a_sweep_and_is_not_kept(tmp_path: Path, ran: list[Run]) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep(a_load(), a_machine(), rate=[2, 66, 8], seeds=[0], folder=tmp_path)
    assert len(ran) == 2
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_text())["row"]["rate"] == 2


def test_a_parameter_that_no_repr_shows_makes_another_cell(tmp_path: Path) -> None:
    """Of a policy object, of a closure, and of the cost model of a machine."""
    options: dict[str, Any] = {"rate": 500, "seeds": [0], "folder": tmp_path, "max_num_seqs": 1}
    load = Workload(Poisson(5.0), Uniform((8, 64), (2, 9)), num_requests=12)
    for one, other in ((Weighted(1), Weighted(-1)), (weighted(1), weighted(-1))):
        kept = sweep(load, a_machine(), policy={"mine": one}, **options)
        found = sweep(load, a_machine(), policy={"mine": other}, **options)
        assert found["e2e_s_mean"][0] != kept["e2e_s_mean"][0]
    slow = [sweep(load, slower(times), **options)["e2e_s_mean"][0] for times in (1, 5)]
    assert slow[1] == pytest.approx(5 * slow[0], rel=0.2)


@pytest.mark.slow
def test_a_sweep_of_an_engine_can_be_resumed(tmp_path: Path, ran: list[Run]) -> None:
    llm = LLM()
    load = Workload(Poisson(50.0), Fixed(4, 2), num_requests=3)
    first, again = (sweep(load, llm, seeds=[0], folder=tmp_path) for _ in range(2))
    llm.close()
    assert len(ran) == 1
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_seeds_that_draw_nothing_are_no_replicates(caplog: pytest.LogCaptureFixture) -> None:
    trace = Workload.from_columns(a_load().columns, content=a_load().content)
    df = sweep(trace, a_machine(), rate=[2, 4], seeds=range(3))
    assert df["seed"].tolist() == [0, 0]
    assert "seeds draw nothing" in caplog.text
    assert curve_table(df, "ttft_s_p99")["low"].isna().all()


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": 3},
        {"seeds": []},
        {"seeds": [1, 1]},
        {"seeds": ["a"]},
        {"processes": "2"},
        {"processes": 0},
        {"rate": ["a"]},
        {"rate": [0]},
        {"rate": math.nan},
    ],
)
def test_arguments_without_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(options))):
        sweep(a_load(), a_machine(), **options)


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
