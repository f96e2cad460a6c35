"""A thing's identity changes with all that it depends on, and with nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit import experiments
from toolkit.errors import InvalidConfig
from toolkit.experiments import Fixed, Poisson, Workload
from toolkit.experiments.studies.identity import identity_of
from toolkit.simulate import Disaggregated, Fleet, Machine

LIMIT = {"value": 1}


def reads_a_global(request: Any, view: Any) -> int:
    return LIMIT["value"]


def calls_another(request: Any, view: Any) -> int:
    return reads_a_global(request, view)


@dataclass
class Settings:
    names: list[str] = field(default_factory=list)
    inner: Any = None


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def made(value: Any) -> Callable[[], Any]:
    def give() -> Any:
        return value

    return give


def with_default(value: Any) -> Callable[..., Any]:
    def give(default: Any = value) -> Any:
        return default

    return give


VALUES = st.one_of(st.integers(), st.text(), st.floats(allow_nan=False), st.binary())
HOLDERS = [made, with_default, Slotted, lambda value: Settings(inner=[{1: value}])]


@pytest.mark.parametrize("holder", HOLDERS)
@given(one=VALUES, other=VALUES)
def test_what_is_held_decides(holder: Callable[[Any], Any], one: Any, other: Any) -> None:
    same = type(one) is type(other) and repr(one) == repr(other)
    assert (identity_of(holder(one)) == identity_of(holder(other))) == same


def test_a_global_that_code_reads_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [identity_of(each) for each in (reads_a_global, calls_another)]
    assert before == [identity_of(each) for each in (reads_a_global, calls_another)]
    monkeypatch.setitem(LIMIT, "value", 2)
    after = [identity_of(each) for each in (reads_a_global, calls_another)]
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_code_and_the_code_of_a_class_decide() -> None:
    def kind(change: int) -> type:
        source = f"class Policy:\n    def rank(self, request, view):\n        return {change}"
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(source, space)
        found: type = space["Policy"]
        return found

    assert identity_of(kind(1)()) == identity_of(kind(1)())
    assert identity_of(kind(1)()) != identity_of(kind(2)())


def test_a_cycle_ends() -> None:
    one, other = Settings(), Settings()
    one.inner, other.inner = other, one
    assert identity_of(one) == identity_of(one)


def test_a_machine_is_the_same_after_a_run_and_differs_in_any_argument() -> None:
    machine = Machine("opt-13b", "A100-40GB")
    before = identity_of(machine)
    load = Workload(Poisson(5.0), Fixed(20, 2), num_requests=3)
    experiments.run(load, on=machine, progress=False)
    assert identity_of(machine) == before == identity_of(Machine("opt-13b", "A100-40GB"))
    others = [
        Machine("opt-13b", "A100-80GB"),
        Fleet(machine, replicas=3),
        Fleet(machine, replicas=2),
        Fleet(machine, replicas=2, seed=9),
        Disaggregated(machine),
        Disaggregated(machine, decode_machine=Machine("opt-13b", "A100-80GB")),
    ]
    assert len({before, *map(identity_of, others)}) == len(others) + 1


def test_arrays_and_generators_are_told_by_what_they_hold() -> None:
    assert identity_of(np.arange(3)) != identity_of(np.arange(4))
    first, second = np.random.default_rng(0), np.random.default_rng(0)
    assert identity_of(first) == identity_of(second)
    second.random()
    assert identity_of(first) != identity_of(second)


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="leave folder out"):
        identity_of(made(threading.Lock()))
