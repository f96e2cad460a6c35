"""How long other Python threads may keep the interpreter while an engine runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.builders import make_engine
from toolkit.engine.interpreter import SWITCH_INTERVAL_S, quick_switching

ROUNDING_S = 2e-6  # Python keeps whole microseconds, cut off each time that one is set


@pytest.fixture(autouse=True)
def interval() -> Iterator[float]:
    before = sys.getswitchinterval()
    yield before
    sys.setswitchinterval(before)


def test_it_is_short_while_any_engine_is_started(interval: float) -> None:
    first, second = make_engine(), make_engine()
    first.start()
    second.start()
    first.stop()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S, abs=ROUNDING_S)
    second.stop()
    assert sys.getswitchinterval() == pytest.approx(interval, abs=ROUNDING_S)


def test_a_shorter_one_is_kept() -> None:
    sys.setswitchinterval(1e-5)
    with quick_switching():
        assert sys.getswitchinterval() == pytest.approx(1e-5)
    assert sys.getswitchinterval() == pytest.approx(1e-5)


def test_one_that_is_set_meanwhile_stays() -> None:
    with quick_switching():
        sys.setswitchinterval(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)
