"""Workloads on the real engine of a tiny model, and on simulated machines."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pandas as pd
import pytest

from tests.server.tiny_model import write_tiny_model
from toolkit import LLM, experiments, serve
from toolkit.errors import InvalidConfig
from toolkit.experiments import AtOnce, ChatTurns, Closed, Constant, Fixed, Run, Workload
from toolkit.experiments.metrics import attainment
from toolkit.experiments.runs.results import REQUEST_COLUMNS
from toolkit.experiments.workloads.columns import Ragged
from toolkit.experiments.workloads.given import GivenBlocks
from toolkit.record import Record
from toolkit.simulate import Disaggregated, Fleet, Machine, drive


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    with LLM(str(folder), max_num_seqs=4, num_kv_blocks=128) as llm:
        yield llm


def check(run: Run, w: Workload) -> None:
    """Whatever ran a workload to its end, these hold of the run."""
    requests = run.requests
    assert list(requests.columns)[: len(REQUEST_COLUMNS)] == list(REQUEST_COLUMNS)
    assert requests["arrival_id"].tolist() == list(range(len(w)))
    assert set(requests["status"]) == {"finished"}
    asked = w.table
    for name in ("num_prompt_tokens", "num_output_tokens"):
        assert requests[name].tolist() == asked[name].tolist()
    free = asked["after"] < 0
    assert requests.loc[free, "scheduled_s"].tolist() == pytest.approx(
        asked.loc[free, "due_s"].tolist()
    )
    moments = ("scheduled_s", "sent_s", "first_token_s", "last_token_s")
    for before, after in pairwise(moments):
        assert (requests[before] <= requests[after] + 1e-9).all()
    pd.testing.assert_series_equal(
        requests["ttft_s"], requests["first_token_s"] - requests["scheduled_s"], check_names=False
    )
    assert run.workload_description["fingerprint"] == w.fingerprint


def test_a_load_on_an_llm_is_timed_by_its_record(llm: LLM) -> None:
    w = Workload(Constant(100.0), Fixed(20, 5), num_requests=8, tags={"tenant": ["a", "b"]})
    run = experiments.run(w, on=llm)
    check(run, w)
    assert run.record is not None
    recorded = run.record.requests.set_index("request_id").loc[run.requests["request_id"]]
    assert run.requests["ttft_s"].tolist() == pytest.approx(recorded["ttft_s"].tolist())
    assert run.requests["tpot_s"].tolist() == pytest.approx(recorded["tpot_s"].tolist())
    assert run.requests["tags.tenant"].tolist() == recorded["tags.tenant"].tolist()
    assert len(run.record.requests) == 8  # the warm-up is not in it
    assert len(run.tokens) == 40
    last = run.tokens.groupby("arrival_id")["time_s"].max()
    assert last.tolist() == pytest.approx(run.requests["last_token_s"].tolist())
    assert run.saturation is not None
    assert run.settings["policy"] == "fcfs"
    assert run.environment["model_fingerprint"]
    summary = run.summary(by="tags.tenant", slo={"e2e_s": 60.0})
    assert summary.loc[("a", "goodput_share"), "mean"] == 1.0


def test_clients_that_wait_for_their_answers_ask_one_after_the_other(llm: LLM) -> None:
    w = Workload(Closed(2, think_s=0.01), Fixed(10, 3), num_requests=8)
    run = experiments.run(w, on=llm, warmup=0)
    check(run, w)
    requests = run.requests.set_index("arrival_id")
    for arrival_id, after, due_s in w.table[["arrival_id", "after", "due_s"]].itertuples(
        index=False
    ):
        if after >= 0:
            waited_s = requests.at[arrival_id, "scheduled_s"] - requests.at[after, "finished_s"]
            assert waited_s == pytest.approx(due_s)


def test_turns_of_a_chat_find_their_past_in_the_cache_and_an_empty_one_to_begin_with(
    llm: LLM,
) -> None:
    w = Workload(AtOnce(), Fixed(32, 4), num_requests=6, content=ChatTurns(3))
    first = experiments.run(w, on=llm)
    cached = first.requests["num_cached_tokens"].tolist()
    assert max(cached) > 0
    assert experiments.run(w, on=llm).requests["num_cached_tokens"].tolist() == cached
    again = experiments.run(w, on=llm, keep_prefix_cache=True, warmup=0)
    assert again.requests["num_cached_tokens"].sum() > sum(cached)
    assert any("found in the prefix cache" in note for note in again.notes)


def test_a_policy_holds_for_one_run(llm: LLM) -> None:
    w = Workload(AtOnce(), Fixed(10, 2), num_requests=2)
    run = experiments.run(w, on=llm.engine, policy="shortest-first")
    assert run.settings["policy"] == "shortest-first"
    assert llm.engine.scheduler.policy.name == "fcfs"


def test_a_limit_in_flight_is_reported(llm: LLM) -> None:
    w = Workload(AtOnce(), Fixed(10, 3), num_requests=6)
    run = experiments.run(w, on=llm, max_in_flight=2)
    check(run, w)
    assert run.record is not None
    assert run.record.steps["num_requests"].max() <= 2
    assert run.saturation is not None
    assert run.saturation.num_held_back == 4
    assert any("coordinated omission" in note for note in run.notes)


def test_what_the_engine_refuses_is_a_row(llm: LLM) -> None:
    w = Workload.from_prompts([[5] * 10, [5] * 600, [6] * 10], 3)
    run = experiments.run(w, on=llm)
    assert run.requests["status"].tolist() == ["finished", "failed", "finished"]
    assert "max_model_len" in run.requests.at[1, "error"]
    assert run.requests["request_id"].isna().tolist() == [False, True, False]
    assert math.isnan(run.requests.at[1, "ttft_s"])
    assert "1 of 3 requests failed" in run.notes[0]


def test_an_interrupt_returns_what_there_is(llm: LLM) -> None:
    def interrupt() -> None:
        while llm.engine.scheduler.num_running < 3:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    w = Workload(Constant(10.0), Fixed(10, 400), num_requests=100)
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    run = experiments.run(w, on=llm, warmup=0)
    interrupter.join()
    assert 3 <= len(run.requests) < 100
    assert "aborted" in set(run.requests["status"])
    assert run.is_interrupted
    assert "requests were not sent" in run.notes[0]
    assert not llm.engine.scheduler.has_work


@pytest.mark.slow
def test_the_record_of_a_server_in_this_process_comes_with_the_run(llm: LLM) -> None:
    w = Workload(AtOnce(), Fixed(10, 4), num_requests=3)
    with serve(llm, port=0) as server:
        run = experiments.run(w, on=server, vocab_size=250)
    assert run.requests["status"].tolist() == ["finished"] * 3
    assert run.requests["num_output_tokens"].tolist() == [4] * 3
    assert run.requests["num_prompt_tokens"].tolist() == [10] * 3
    assert run.record is not None
    assert sorted(run.record.requests["api_id"]) == sorted(run.requests["request_id"])


def test_a_simulated_machine_takes_the_same_workload() -> None:
    w = Workload(Constant(5.0), Fixed(100, 10), num_requests=20, tags={"tenant": ["a", "b"]})
    machine = Machine("opt-13b", "A100-40GB")
    run = experiments.run(w, on=machine, policy="shortest-first", max_num_seqs=8)
    check(run, w)
    assert run.tokens.empty
    assert run.saturation is None
    assert run.settings["policy"] == "shortest-first"
    assert run.environment["is_simulated"]
    assert run.summary().at["ttft_s", "num"] == 20
    again = experiments.run(w, on=machine, policy="shortest-first", max_num_seqs=8, level="tokens")
    pd.testing.assert_frame_equal(run.requests, again.requests)
    assert len(again.tokens) == 200
    assert again.summary().at["itl_s", "num"] == 180


def test_several_machines_take_the_same_workload() -> None:
    w = Workload(Constant(20.0), Fixed(100, 10), num_requests=20)
    machine = Machine("opt-13b", "A100-40GB")
    for machines in (Fleet(machine, replicas=2), Disaggregated(machine)):
        run = experiments.run(w, on=machines)
        check(run, w)
        assert run.record is None
        assert attainment(run.requests, {"itl_max_s": 1e-9}) == 0.0
        assert "replicas" in str(run.settings["on"]) or "2 x" in str(run.settings["on"])


def test_one_of_several_machines_is_the_machine_itself_on_the_blocks_of_a_trace() -> None:
    columns = Workload(Constant(2.0), Fixed(100, 5), num_requests=4).columns
    ids = Ragged.of([[1, 2], [1, 2], [1, 3], [4, 5]])
    w = Workload.from_columns(columns, content=GivenBlocks(ids, block_tokens=64))
    machine = Machine("opt-13b", "A100-40GB")
    alone = experiments.run(w, on=machine).requests
    fleet = experiments.run(w, on=Fleet(machine, replicas=1)).requests
    assert alone["num_cached_tokens"].tolist() == [0, 96, 64, 0]
    pd.testing.assert_series_equal(fleet["num_cached_tokens"], alone["num_cached_tokens"])
    large = experiments.run(w, on=Fleet(machine, replicas=1), block_size=64).requests
    assert large["num_cached_tokens"].tolist() == [0, 64, 64, 0]
    with pytest.raises(InvalidConfig, match="arrival 0 has 1 block_keys of 64 tokens for 6 full"):
        machine.run(w.arrivals())


def test_an_option_that_no_target_has_is_refused() -> None:
    w = Workload(Constant(20.0), Fixed(10, 1), num_requests=2)
    machine = Machine("opt-13b", "A100-40GB")
    for target in (machine, Fleet(machine, replicas=2), Disaggregated(machine)):
        with pytest.raises(InvalidConfig, match="no option polcy"):
            experiments.run(w, on=target, polcy="fcfs")


def test_what_a_simulated_engine_refuses_is_a_row() -> None:
    w = Workload.from_prompts([[5] * 10, [5] * 5000], 3)
    run = experiments.run(w, on=Machine("opt-13b", "A100-40GB"))
    assert run.requests["status"].tolist() == ["finished", "failed"]


def test_a_record_and_its_ids_are_all_that_a_run_needs() -> None:
    w = Workload(Constant(5.0), Fixed(100, 10), num_requests=4)
    engine = Machine("opt-13b", "A100-40GB").engine()
    ids = drive(engine, w.arrivals())
    run = Run.from_record(engine.record, ids, w, settings={"on": "mine"})
    check(run, w)
    assert "on mine: 4 finished" in repr(run)


@pytest.mark.parametrize("on", [3, None, object(), Record()])
def test_what_runs_no_workload_is_refused(on: object) -> None:
    w = Workload(AtOnce(), Fixed(4, 2), num_requests=1)
    with pytest.raises(InvalidConfig, match="runs no workload"):
        experiments.run(w, on=on)


def test_options_of_others_are_refused(llm: LLM) -> None:
    w = Workload(AtOnce(), Fixed(4, 2), num_requests=1)
    with pytest.raises(InvalidConfig, match="no option api_key"):
        experiments.run(w, on=llm, api_key="x")
    with pytest.raises(InvalidConfig, match="no option max_in_flight for this target; it has"):
        experiments.run(w, on=Machine("opt-13b", "A100-40GB"), max_in_flight=3)
    for limit in (0, -1, 1.5):
        with pytest.raises(InvalidConfig, match="max_in_flight="):
            experiments.run(w, on=llm, max_in_flight=limit)
    with pytest.raises(InvalidConfig, match="virtual"):
        experiments.run(w, on=Machine("opt-13b", "A100-40GB").engine())
