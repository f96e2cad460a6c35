"""The order of things on one time line, and what a router can know when."""

from __future__ import annotations

from toolkit.request import Request
from toolkit.simulate import Arrival, Machine, StepWork
from toolkit.simulate.timeline import Load, Replica, Timeline


def test_at_one_moment_ends_come_first_and_beginnings_last():
    line, seen = Timeline(), []
    line.begin(1.0, lambda: seen.append("begins"))
    line.arrival(1.0, lambda: seen.append("arrives"))
    line.end(1.0, lambda: seen.append("ends"))
    line.arrival(0.5, lambda: seen.append("before"))
    line.run()
    assert seen == ["before", "ends", "arrives", "begins"]


def test_what_is_added_meanwhile_is_done_in_its_place():
    line, seen = Timeline(), []
    line.arrival(1.0, lambda: line.arrival(2.0, lambda: seen.append(line.now_s)))
    line.arrival(3.0, lambda: seen.append(line.now_s))
    line.run()
    assert seen == [2.0, 3.0]


def one_second(work: StepWork) -> float:
    return 1.0


def make_replica(line: Timeline, ends: list[tuple[float, int]]) -> Replica:
    def end(replica: Replica, arrival: Arrival, request: Request | None) -> None:
        ends.append((line.now_s, arrival.arrival_id))

    machine = Machine("opt-13b", "A100-40GB", cost_model=one_second)
    return Replica(0, machine.engine(), line, end)


def test_a_request_counts_until_the_step_that_finishes_it_is_over():
    """The engine is ahead: at 0.5 s it has computed the step that ends at 1 s."""
    line, ends, seen = Timeline(), [], []
    replica = make_replica(line, ends)
    line.arrival(0.0, lambda: replica.add(Arrival(7, 0.0, 10, 1), 0.0))
    for time_s in (0.5, 1.0):
        line.arrival(time_s, lambda: seen.append(replica.num_unfinished))
    line.run()
    assert seen == [1, 0]
    assert ends == [(1.0, 7)]


def test_who_comes_within_a_step_is_computed_in_the_next():
    line, ends = Timeline(), []
    replica = make_replica(line, ends)
    line.arrival(0.0, lambda: replica.add(Arrival(0, 0.0, 10, 2), 0.0))
    line.arrival(0.25, lambda: replica.add(Arrival(1, 0.25, 10, 1), 0.25))
    line.run()
    assert ends == [(2.0, 0), (2.0, 1)]
    table = replica.engine.record.requests
    assert table["arrival_s"].tolist() == [0.0, 0.25]
    assert table["first_token_s"].tolist() == [1.0, 2.0]


def test_an_idle_replica_begins_when_somebody_comes():
    line, ends = Timeline(), []
    replica = make_replica(line, ends)
    for number, time_s in enumerate((0.0, 5.5)):
        arrival = Arrival(number, time_s, 10, 1)
        line.arrival(time_s, lambda arrival=arrival: replica.add(arrival, arrival.due_s))
    line.run()
    assert ends == [(1.0, 0), (6.5, 1)]


def test_who_is_refused_has_ended_at_once():
    line, ends = Timeline(), []
    replica = make_replica(line, ends)
    line.arrival(2.0, lambda: replica.add(Arrival(0, 2.0, 100_000, 1), 2.0))
    line.run()
    assert ends == [(2.0, 0)]
    assert replica.num_unfinished == 0


def test_a_follower_comes_when_its_time_after_the_end_has_passed():
    line, come = Timeline(), []
    arrivals = [Arrival(0, 1.0, 1, 1), Arrival(1, 2.0, 1, 1, after=0), Arrival(2, 9.0, 1, 1)]

    def deliver(arrival: Arrival, due_s: float) -> None:
        come.append((arrival.arrival_id, due_s))
        load.ended(arrival.arrival_id)

    with Load(arrivals, line, deliver, progress=False) as load:
        line.run()
    assert come == [(0, 1.0), (1, 3.0), (2, 9.0)]
