"""The highest rate within limits, on machines whose capacity is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from toolkit.errors import InvalidConfig, InvalidParameter
from toolkit.experiments.metrics import queue_growth
from toolkit.experiments.runs.results import Run
from toolkit.experiments.runs.running import run
from toolkit.experiments.studies.capacity_search import capacity
from toolkit.experiments.workloads.arrivals import AtOnce, Poisson
from toolkit.experiments.workloads.lengths import Fixed
from toolkit.experiments.workloads.workload import Workload
from toolkit.simulate import Machine, StepWork

NUM = 80


def one_at_a_time(step_s: float = 0.1) -> Machine:
    """A machine on which each step takes as long: with one sequence at a time, M/D/1."""

    def cost(work: StepWork) -> float:
        return step_s

    return Machine("opt-125m", "A100-40GB", cost_model=cost)


def a_load(rate: float = 1.0) -> Workload:
    return Workload(Poisson(rate), Fixed(8, 2), num_requests=NUM)  # two steps each


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.5, 20.0])
def test_the_capacity_of_one_server_is_found_from_either_side(start: float) -> None:
    load = Workload(Poisson(1.0, rescale=True), Fixed(8, 2), num_requests=600)
    found = capacity(load, one_at_a_time(), slo=lambda run: True, start=start, max_num_seqs=1)
    assert found.rate == pytest.approx(5.0, rel=0.06)  # a second for five: M/D/1
    assert found.below / found.rate < 1.04
    assert "queue grows" in found.reason


@pytest.mark.slow
@pytest.mark.parametrize("num_requests", [30, 400])
def test_where_the_queue_decides_a_short_load_claims_no_more_than_it_tells(
    num_requests: int,
) -> None:
    """Eight at a time for two seconds each: four a second, whatever the number of requests."""
    load = Workload(Poisson(1.0, rescale=True), Fixed(8, 20), num_requests=num_requests)
    found = capacity(load, one_at_a_time(), slo=lambda run: True, max_num_seqs=8)
    assert found.rate < 4.0 * 1.05
    assert found.below > 4.0 * 0.95
    assert found.rate > 0


def test_an_overloaded_run_is_judged_by_its_queue_and_not_by_its_length() -> None:
    """A steady window that shrinks with the overload lets twice the capacity pass."""
    for times in (1.2, 1.5, 2.3):
        load = Workload(Poisson(5 * times, rescale=True), Fixed(8, 2), num_requests=300)
        done = run(load, one_at_a_time(), max_num_seqs=1, progress=False)
        growth = queue_growth(done.requests)
        assert growth.per_s == pytest.approx(5 * (times - 1), rel=0.25)
        assert growth.per_s > 3 * growth.error_per_s


def test_an_interrupted_probe_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = []

    def interrupted(w: Workload, on: Any, **options: Any) -> Run:
        done = run(w, on, **options)
        probes.append(w.rate)
        done.is_interrupted = len(probes) == 2
        return done

    monkeypatch.setattr("toolkit.experiments.studies.cells.run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        capacity(a_load(), one_at_a_time(), slo={"ttft_s": 1.0}, max_num_seqs=1)
    assert len(probes) == 2


def test_a_stricter_limit_is_kept_up_to_a_lower_rate() -> None:
    loose, strict = (
        capacity(a_load(), one_at_a_time(), slo={"ttft_s": s}, tolerance=0.2, max_num_seqs=1)
        for s in (3.0, 0.2)
    )
    assert strict.rate < loose.rate
    assert "keep the limits" in strict.reason


def test_a_growing_queue_is_no_capacity_whatever_the_limits() -> None:
    found = capacity(a_load(), one_at_a_time(), slo={"ttft_s": 1e9}, tolerance=0.2, max_num_seqs=1)
    assert found.rate < 8
    assert "queue grows" in found.reason or "half of it is served" in found.reason


def test_a_function_may_be_the_judge() -> None:
    found = capacity(
        a_load(),
        one_at_a_time(),
        slo=lambda run: run.requests["norm_latency_s"].mean() < 0.3,
        tolerance=0.2,
        max_num_seqs=1,
    )
    assert 1 < found.rate < 6
    assert found.table["attainment"].isna().all()


def test_what_never_holds_has_no_capacity() -> None:
    found = capacity(a_load(), one_at_a_time(), slo={"ttft_s": 1e-6}, max_num_seqs=1)
    assert found.rate == 0
    assert not found.table["holds"].any()
    assert "Capacity: 0" in repr(found)


def test_every_probe_is_told() -> None:
    found = capacity(a_load(), one_at_a_time(), slo={"ttft_s": 1.0}, tolerance=0.5, max_num_seqs=1)
    assert found.table["rate"].is_unique
    assert found.rate == found.table.loc[found.table["holds"], "rate"].max()
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    "options", [{"attainment": 0}, {"attainment": 1.5}, {"tolerance": 0}, {"start": math.nan}]
)
def test_arguments_without_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidConfig):
        capacity(a_load(), one_at_a_time(), slo={"ttft_s": 1.0}, **options)  # type: ignore[arg-type]


def test_an_unknown_limit_and_a_load_without_a_rate_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="slo"):
        capacity(a_load(), one_at_a_time(), slo={"speed": 1.0})
    crowd = Workload(AtOnce(), Fixed(8, 2), num_requests=3)
    with pytest.raises(InvalidConfig, match="rate"):
        capacity(crowd, one_at_a_time(), slo={"ttft_s": 1.0})
