"""Prompts here, output there: what crosses the link, when, and that nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulate.test_fleet import LOADS, MACHINE, arrivals_of
from toolkit.errors import InvalidConfig
from toolkit.simulate import Arrival, Disaggregated, Machine, StepWork


def tenth(work: StepWork) -> float:
    return 0.1


def make_pair(**options: object) -> Disaggregated:
    machine = Machine("opt-13b", "A100-40GB", cost_model=tenth)
    return Disaggregated(machine, **{"transfer_gbps": 0.8192, **options})  # 1 ms a token


def test_the_times_of_a_request_are_those_of_its_halves():
    table = make_pair().run([Arrival(0, 1.0, 50, 4)]).requests
    (row,) = table.to_dict("records")
    assert row["arrival_s"] == pytest.approx(1.0)
    assert row["first_token_s"] == pytest.approx(1.1)
    assert row["transfer_s"] == pytest.approx(0.05)
    assert row["last_token_s"] == pytest.approx(1.1 + 0.05 + 3 * 0.1)
    assert row["ttft_s"] == pytest.approx(0.1)
    assert row["tpot_s"] == pytest.approx(0.35 / 3)
    assert row["e2e_s"] == pytest.approx(0.45)
    assert row["num_output_tokens"] == 4
    assert row["num_prompt_tokens"] == 50


def test_the_gap_between_the_halves_is_a_gap_between_tokens():
    table = make_pair().run([Arrival(0, 0.0, 50, 4), Arrival(1, 9.0, 50, 1)]).requests
    assert table["itl_max_s"][0] == pytest.approx(0.05 + 0.1)
    assert table["itl_p50_s"][0] == pytest.approx(0.1)
    assert table["itl_p99_s"][0] == pytest.approx(0.1 + 0.98 * 0.05)
    assert table["itl_max_s"].isna().tolist() == [False, True]


def test_a_link_moves_one_request_after_the_other():
    arrivals = [Arrival(number, 0.0, 100, 2) for number in range(3)]
    table = make_pair().run(arrivals).requests
    assert table["transfer_s"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    two = make_pair(num_prefill=2).run(arrivals).requests
    assert sorted(two["transfer_s"]) == pytest.approx([0.1, 0.1, 0.2])


def test_one_token_needs_no_decode_replica():
    table = make_pair().run([Arrival(0, 0.0, 50, 1), Arrival(1, 0.0, 50, 2)]).requests
    assert table["decode_replica"].tolist() == [-1, 0]
    assert table["transfer_s"].isna().tolist() == [True, False]
    assert table["tpot_s"].isna().tolist() == [True, False]
    assert table["num_output_tokens"].tolist() == [1, 2]


def test_a_prompt_never_stretches_a_step_between_two_tokens():
    """The longest prompts arrive while somebody generates: on one machine they hold it up."""
    arrivals = [Arrival(0, 0.0, 16, 60)]
    arrivals += [Arrival(n, 0.1 * n, 1500, 2) for n in range(1, 8)]
    together = MACHINE.run(arrivals).requests
    apart = Disaggregated(MACHINE).run(arrivals).requests
    assert apart["tpot_s"][0] < 0.6 * together["tpot_s"][0]


@settings(max_examples=8, deadline=None)
@given(loads=LOADS, num_prefill=st.integers(1, 3), num_decode=st.integers(1, 3))
def test_every_request_gets_all_of_its_tokens(
    loads: list[tuple[float, int, int]], num_prefill: int, num_decode: int
) -> None:
    pair = Disaggregated(MACHINE, num_prefill=num_prefill, num_decode=num_decode)
    run = pair.run(arrivals_of(loads), check_every_step=True)
    table = run.requests
    assert table["arrival_id"].tolist() == list(range(len(loads)))
    assert table["num_output_tokens"].tolist() == [load[2] for load in loads]
    assert (table["status"] == "finished").all()
    assert (table["e2e_s"] >= table["ttft_s"]).all()
    several = table[table["num_output_tokens"] > 1]
    assert (several["itl_p50_s"] <= several["itl_max_s"]).all()
    span_s = several["last_token_s"] - several["first_token_s"]
    assert (several["itl_max_s"] <= span_s + 1e-9).all()
    assert (several["itl_max_s"] >= several["tpot_s"] - 1e-9).all()
    prompts = sum(record.steps["num_prompt_tokens"].sum() for record in run.records[:num_prefill])
    assert prompts == sum(load[1] for load in loads), "no prompt is computed twice"
    again = pair.run(arrivals_of(loads)).requests
    assert again["last_token_s"].equals(table["last_token_s"])


def test_what_a_decode_replica_loses_it_computes_again():
    arrivals = [Arrival(number, 0.0, 100, 150) for number in range(6)]
    run = Disaggregated(MACHINE).run(arrivals, num_kv_blocks=64, max_model_len=512)
    assert run.requests["num_preemptions"].sum() > 0
    assert run.requests["num_recomputed_tokens"].sum() > 0
    assert (run.requests["num_output_tokens"] == 150).all()


def test_a_conversation_goes_on_when_its_last_token_is_out():
    chain = [Arrival(0, 0.0, 50, 10), Arrival(1, 2.0, 50, 1, after=0)]
    table = make_pair().run(chain).requests
    assert table["arrival_s"][1] == pytest.approx(table["finished_s"][0] + 2.0)


def test_who_is_refused_has_no_row():
    table = make_pair().run([Arrival(0, 0.0, 9_999, 2), Arrival(1, 0.0, 50, 2)]).requests
    assert table["arrival_id"].tolist() == [1]


def test_the_halves_may_run_on_other_devices():
    pair = Disaggregated(
        Machine("llama-3-8b", "H100"), decode_machine=Machine("llama-3-8b", "A100-80GB")
    )
    run = pair.run([Arrival(0, 0.0, 500, 5)])
    assert [record.environment["device"] for record in run.records] == ["H100", "A100-80GB"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_prefill": 0}, "num_prefill"),
        ({"num_decode": 0}, "num_decode"),
        ({"transfer_gbps": 0}, "transfer_gbps"),
        ({"decode_machine": Machine("llama-3-8b", "H100")}, "one model"),
    ],
)
def test_a_pair_that_makes_no_sense_is_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidConfig, match=match):
        make_pair(**options)


def test_the_decode_replicas_have_a_cache_of_their_own():
    with pytest.raises(InvalidConfig, match="allocator"):
        make_pair().run([Arrival(0, 0.0, 9, 2)], allocator="paged")
