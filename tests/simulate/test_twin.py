"""A twin of a machine whose cost is known, and what it answers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.simulate.test_fit import TRUTH, loaded
from toolkit.errors import InvalidConfig, InvalidParameter, RecordError
from toolkit.record import Record
from toolkit.simulate import (
    Arrival,
    FittedCost,
    Machine,
    recorded_arrivals,
    twin,
    vidur_metrics,
    what_if,
)


@pytest.fixture(scope="module")
def record() -> Record:
    return loaded(TRUTH, num_requests=120)


@pytest.fixture(scope="module")
def made(record):
    return twin(record)


def test_a_twin_of_a_machine_of_the_fitted_form_is_right(made):
    assert made.errors["error"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert set(made.errors.index.get_level_values("metric")) == {
        "ttft_s",
        "tpot_s",
        "e2e_s",
        "requests_per_s",
        "output_tokens_per_s",
    }


def test_the_part_that_was_fitted_to_is_not_compared(record):
    late = twin(record, share=0.8)
    assert late.machine.cost_model.num_steps == pytest.approx(0.8 * record.num_rows("steps"), abs=1)
    start_s = record.steps["start_s"].iloc[int(0.8 * record.num_rows("steps"))]
    requests = record.requests
    expected = requests.loc[requests["arrival_s"] >= start_s, "ttft_s"].mean()
    assert late.errors.at[("ttft_s", "mean"), "recorded"] == pytest.approx(expected)


def test_a_load_that_came_at_once_has_nothing_to_compare_after_the_fit():
    machine = Machine("opt-125m", "A100-40GB", cost_model=TRUTH)
    load = [Arrival(number, 0.0, 20 + number, 10 + number) for number in range(40)]
    record = machine.run(load, progress=False, level="tokens", max_num_seqs=4)
    with pytest.raises(InvalidParameter, match="leaves nothing to compare"):
        twin(record)
    assert twin(record, cost_model=TRUTH).errors["error"].to_numpy() == pytest.approx(0, abs=1e-6)


def test_a_wrong_cost_model_shows_in_the_errors(record):
    slow = FittedCost(tuple(2 * each for each in TRUTH.coefficients), 0, None, "twice as slow")
    errors = twin(record, cost_model=slow).errors
    assert errors.at[("tpot_s", "mean"), "error"] > 0.5
    assert "twice as slow" in repr(twin(record, cost_model=slow).machine)


def test_it_has_the_settings_of_the_run(made, record):
    engine = made.machine.engine()
    assert engine.config.scheduler.max_num_batched_tokens == 256
    assert engine.config.cache.num_blocks == record.config["num_blocks"]
    assert made.machine.engine(block_size=32).config.cache.num_slots == pytest.approx(
        made.machine.kv_slots, abs=32
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"polcy": "fcfs"}, "no option polcy; it has policy, block_size"),
        ({"polcy": "fcfs", "replicas": 2}, "no option polcy"),
        ({"block_size": 0}, "block_size must be a positive integer, not 0"),
        ({"block_size": 1.5, "replicas": 2}, "block_size must be a positive integer"),
        ({"replicas": 0}, "replicas must be a positive integer"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(made, asked, told):
    with pytest.raises(InvalidConfig, match=told):
        made.what_if(**asked)


def test_what_if_answers_what_the_machine_itself_does(record, made):
    answer = made.what_if(policy="shortest-first", max_num_seqs=4)
    truth = Machine("opt-125m", "A100-40GB", cost_model=TRUTH).run(
        recorded_arrivals(record),
        policy="shortest-first",
        max_num_seqs=4,
        max_num_batched_tokens=256,
        progress=False,
    )
    assert answer.table.at[("ttft_s", "mean"), "what_if"] == pytest.approx(
        truth.requests["ttft_s"].mean(), rel=1e-6
    )
    assert answer.table.at[("ttft_s", "mean"), "change"] > 0
    assert "policy='shortest-first', max_num_seqs=4" in repr(answer)


def test_its_error_is_the_bar_around_its_answers(record):
    slow = FittedCost(tuple(1.1 * each for each in TRUTH.coefficients), 0, None, "slow")
    made = twin(record, cost_model=slow)
    row = made.what_if(block_size=32).table.loc[("e2e_s", "p90")]
    error = made.errors.at[("e2e_s", "p90"), "error"]
    assert row["high"] / row["what_if"] == pytest.approx(1 + abs(error))
    assert row["low"] / row["what_if"] == pytest.approx(1 - abs(error))


def test_more_machines_take_less_time(made):
    table = what_if(made, replicas=3, router="least-loaded").table
    assert table.at[("tpot_s", "mean"), "change"] < 0


def test_several_machines_keep_the_policy_of_the_run():
    machine = Machine("opt-125m", "A100-40GB", cost_model=TRUTH)
    load = [Arrival(number, 0.0, 90 - 2 * number, 10) for number in range(40)]
    options = {"policy": "shortest-first", "max_num_seqs": 4, "level": "tokens"}
    made = twin(machine.run(load, progress=False, **options), cost_model=TRUTH)
    asked = made.what_if(replicas=2).table
    said = made.what_if(replicas=2, policy="shortest-first").table
    assert asked["what_if"].tolist() == said["what_if"].tolist()
    other = made.what_if(replicas=2, policy="fcfs").table
    assert other.at[("ttft_s", "mean"), "what_if"] != asked.at[("ttft_s", "mean"), "what_if"]


def test_a_policy_of_ones_own_goes_over_to_the_twin():
    asked = []

    def latest_first(request, view):
        asked.append(request.id)
        return -request.arrival_index

    rng = random.Random(0)
    arrivals = [Arrival(n, 0.0, rng.randrange(5, 99), 20) for n in range(40)]
    machine = Machine("opt-125m", "A100-40GB", cost_model=TRUTH)
    record = machine.run(
        arrivals, policy=latest_first, max_num_seqs=4, level="tokens", keeps_journal=True
    )
    asked.clear()
    errors = twin(record, cost_model=TRUTH).errors
    assert asked
    assert errors["error"].to_numpy() == pytest.approx(0, abs=1e-6)


def test_recorded_arrivals_are_the_load(record):
    arrivals = recorded_arrivals(record)
    assert arrivals[0].due_s == 0
    assert [arrival.due_s for arrival in arrivals] == sorted(arrival.due_s for arrival in arrivals)
    requests = record.requests
    assert sum(arrival.num_prompt_tokens for arrival in arrivals) == (
        requests["num_prompt_tokens"].sum()
    )
    assert all(len(arrival.prompt_token_ids) == arrival.num_prompt_tokens for arrival in arrivals)
    assert all(len(arrival.output_token_ids) == arrival.num_output_tokens for arrival in arrivals)


def test_what_has_no_answer_is_refused(made, record):
    with pytest.raises(InvalidParameter, match="something to change"):
        made.what_if()
    with pytest.raises(InvalidParameter, match="between 0 and 1"):
        twin(record, share=1.0)
    with pytest.raises(RecordError, match="no request"):
        recorded_arrivals(Record())


def test_vidurs_columns_add_up(record):
    table = vidur_metrics(record)
    assert len(table) == len(record.requests)
    assert table["request_scheduling_delay"].to_numpy() + table[
        "request_execution_plus_preemption_time"
    ].to_numpy() == pytest.approx(table["request_e2e_time"].to_numpy())
    assert table["prefill_e2e_time"].to_numpy() == pytest.approx(
        record.requests["ttft_s"].to_numpy()
    )
    assert table["request_num_tokens"].sum() == (
        record.requests[["num_prompt_tokens", "num_output_tokens"]].to_numpy().sum()
    )
    assert np.isnan(table["request_inter_arrival_delay"].iloc[0])
