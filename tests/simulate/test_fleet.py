"""Replicas behind a router: one of them is a machine, several share what comes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.simulate import Arrival, Fleet, Machine, Replica, StaticBatching, StepWork

MACHINE = Machine("opt-13b", "A100-40GB")
LOADS = st.lists(
    st.tuples(st.floats(0, 0.2), st.integers(1, 200), st.integers(1, 20)), min_size=1, max_size=25
)


def arrivals_of(loads: list[tuple[float, int, int]]) -> list[Arrival]:
    due_s, arrivals = 0.0, []
    for number, (gap_s, num_prompt, num_output) in enumerate(loads):
        due_s += gap_s
        arrivals.append(Arrival(number, due_s, num_prompt, num_output))
    return arrivals


@settings(max_examples=8, deadline=None)
@given(loads=LOADS)
def test_a_fleet_of_one_is_its_machine(loads: list[tuple[float, int, int]]) -> None:
    arrivals = arrivals_of(loads)
    alone = MACHINE.run(arrivals).requests
    fleet = Fleet(MACHINE, replicas=1).run(arrivals).requests
    for column in ("arrival_s", "first_token_s", "finished_s"):
        assert fleet[column].tolist() == pytest.approx(alone[column].tolist(), abs=1e-9)


@settings(max_examples=8, deadline=None)
@given(loads=LOADS, router=st.sampled_from(["random", "least-loaded", "prefix-aware"]))
def test_every_request_is_served_once_and_alike_twice(
    loads: list[tuple[float, int, int]], router: str
) -> None:
    arrivals = arrivals_of(loads)
    fleet = Fleet(MACHINE, replicas=3, router=router, seed=5)
    run = fleet.run(arrivals, check_every_step=True)
    assert run.requests["arrival_id"].tolist() == list(range(len(loads)))
    assert run.requests["num_output_tokens"].tolist() == [load[2] for load in loads]
    assert (run.requests["status"] == "finished").all()
    assert sum(record.num_rows("requests") for record in run.records) == len(loads)
    again = fleet.run(arrivals)
    columns = ["replica", "request_id", "first_token_s", "finished_s"]
    assert again.requests[columns].equals(run.requests[columns])


def test_the_least_loaded_replica_has_the_fewest_unfinished_requests():
    """One of the first two is long: later ones go where the short one has ended."""
    loads = [Arrival(0, 0.0, 10, 500), Arrival(1, 0.0, 10, 1)]
    later = [Arrival(number, 1.0 * number, 10, 1) for number in range(2, 6)]
    run = Fleet(MACHINE, replicas=2, router="least-loaded").run([*loads, *later])
    assert run.requests["replica"].tolist() == [0, 1, 1, 1, 1, 1]


def test_a_router_does_not_see_the_end_of_a_step_that_still_runs():
    seen = []

    def look(arrival: Arrival, replicas: Sequence[Replica]) -> int:
        seen.append([replica.num_unfinished for replica in replicas])
        return 0

    def one_second(work: StepWork) -> float:
        return 1.0

    machine = Machine("opt-13b", "A100-40GB", cost_model=one_second)
    arrivals = [Arrival(number, due_s, 10, 1) for number, due_s in enumerate((0.0, 0.9, 1.0))]
    Fleet(machine, replicas=2, router=look).run(arrivals)
    assert seen == [[0, 0], [1, 0], [1, 0]], "the first ends at 1 s, the second is in line"


def prompts(count: int, *, groups: int, num_shared: int = 96) -> list[Arrival]:
    """Prompts of ``groups`` kinds, of which each has a common beginning."""
    return [
        Arrival(
            number,
            0.5 * number,
            num_shared + 32,
            4,
            prompt_token_ids=(number % groups,) * num_shared + (1000 + number,) * 32,
        )
        for number in range(count)
    ]


def test_a_prefix_aware_router_keeps_those_together_that_share_a_prompt():
    arrivals = prompts(40, groups=5)
    aware = Fleet(MACHINE, replicas=4, router="prefix-aware").run(arrivals).requests
    assert (aware.groupby(aware["arrival_id"] % 5)["replica"].nunique() == 1).all()
    blind = Fleet(MACHINE, replicas=4, router="random").run(arrivals).requests
    assert aware["num_cached_tokens"].sum() == 35 * 96
    assert blind["num_cached_tokens"].sum() < 35 * 96


def test_block_keys_lead_to_the_replica_that_has_the_blocks():
    keys = (b"first", b"second")
    arrivals = [
        Arrival(0, 0.0, 40, 2, block_keys=(b"other", b"and more")),
        Arrival(1, 0.0, 40, 20, block_keys=keys),
        Arrival(2, 0.3, 40, 2, block_keys=keys),
    ]
    run = Fleet(MACHINE, replicas=2, router="prefix-aware").run(arrivals)
    assert run.requests["replica"].tolist() == [0, 1, 1]
    assert run.requests["num_cached_tokens"].tolist() == [0, 0, 32]


def test_a_prefix_does_not_outweigh_a_line_that_is_far_longer():
    same = [Arrival(n, 0.0, 128, 4, prompt_token_ids=(7,) * 128) for n in range(100)]
    run = Fleet(MACHINE, replicas=2, router="prefix-aware").run(same)
    assert run.requests["replica"].nunique() == 2


def test_a_conversation_goes_on_when_its_turn_before_has_ended():
    chain = [Arrival(0, 0.0, 50, 10), Arrival(1, 2.0, 50, 10, after=0)]
    table = Fleet(MACHINE, replicas=2, router="least-loaded").run(chain).requests
    assert table["arrival_s"][1] == pytest.approx(table["finished_s"][0] + 2.0)


def test_a_policy_that_remembers_does_so_for_each_replica_alone():
    """Batches of two on either replica: with one memory for both, one replica would wait."""
    arrivals = [Arrival(number, 0.0, 10, 5) for number in range(4)]
    fleet = Fleet(MACHINE, replicas=2, router="least-loaded")
    table = fleet.run(arrivals, policy=StaticBatching(2)).requests
    assert table["first_scheduled_s"].tolist() == [0.0] * 4


def test_the_summary_is_over_all_replicas():
    arrivals = [Arrival(number, 0.0, 100, 4) for number in range(10)]
    run = Fleet(MACHINE, replicas=2, router="least-loaded").run(arrivals)
    assert run.summary().loc["finished", "num"] == 10
    assert run.summary("replica").loc[(0, "finished"), "num"] == 5
    assert "10 requests" in repr(run)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"replicas": 0}, "replicas"),
        ({"replicas": True}, "replicas"),
        ({"router": "nearest"}, "least-loaded"),
    ],
)
def test_a_fleet_that_makes_no_sense_is_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidConfig, match=match):
        Fleet(MACHINE, **options)


@pytest.mark.parametrize("answer", [None, 2, -1, "0"])
def test_a_router_must_name_a_replica(answer: object) -> None:
    fleet = Fleet(MACHINE, replicas=2, router=lambda arrival, replicas: answer)
    with pytest.raises(InvalidConfig, match="one of the replicas 0 to 1"):
        fleet.run([Arrival(0, 0.0, 10, 1)])
