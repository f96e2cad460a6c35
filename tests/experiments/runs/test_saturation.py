"""Whether a client kept up is told from how late it was, and how busy."""

from __future__ import annotations

import math

import pytest

from toolkit.experiments.runs.saturation import saturation


def test_a_client_that_is_in_time_is_ok() -> None:
    watched = saturation([0.001] * 99 + [0.5], [0.0] * 100, loop_lags_s=[0.001], cpu_share=0.3)
    assert watched.verdict == "ok"
    assert watched.send_lag_max_s == 0.5
    assert watched.omission is None
    assert str(watched) == "client ok, 1 process"


@pytest.mark.parametrize(
    ("signs", "says"),
    [
        ({"lags_s": [0.03] * 10}, "sent 30 ms late"),
        ({"loop_lags_s": [0.02] * 10}, "event loop was 20 ms late"),
        ({"cpu_share": 0.95}, "95 % of a core"),
    ],
)
def test_each_sign_of_a_bottleneck_is_named(signs: dict[str, object], says: str) -> None:
    watched = saturation(**{"lags_s": [0.0], "held_back_s": [0.0], **signs})  # type: ignore[arg-type]
    assert watched.is_saturated
    assert says in str(watched)


def test_what_a_limit_holds_back_is_told_apart_from_lateness() -> None:
    watched = saturation([0.0] * 3, [0.0, 1.5, 2.5])
    assert not watched.is_saturated
    assert "held back 2 requests, by up to 2.5 s" in str(watched.omission)


def test_no_client_is_late_where_all_are_due_at_once() -> None:
    watched = saturation([0.0, 0.036], [0.0, 0.0], rate=math.inf)
    assert not watched.is_saturated
    assert math.isnan(watched.send_lag_max_s)
    assert saturation([0.0, 0.036], [0.0, 0.0], rate=50.0).is_saturated


def test_nothing_sent_is_no_verdict() -> None:
    watched = saturation([], [], num_unsent=4)
    assert math.isnan(watched.send_lag_p99_s)
    assert not watched.is_saturated
