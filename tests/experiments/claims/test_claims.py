"""Claims: the verdict on a number, and the table as a whole."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.experiments.claims.claim import (
    HOLDS,
    KINDS,
    NOT_REPRODUCED,
    REPRODUCED,
    Claim,
    Spread,
)
from toolkit.experiments.claims.table import CLAIMS, claims_of, find_claim

ONE = Claim("one", "Paper", "1", "requests", 10.0, 0.2, "ratio", "here")
POSITIVE = st.floats(1e-3, 1e6)


def a_claim(
    kind: str, tolerance: float, *, value: float = 10.0, high: float | None = None
) -> Claim:
    return replace(ONE, kind=kind, tolerance=tolerance, value=value, high=high)


@pytest.mark.parametrize(
    ("claim", "measured", "verdict"),
    [
        (a_claim("ratio", 0.2), 12.0, REPRODUCED),
        (a_claim("ratio", 0.2), 12.1, NOT_REPRODUCED),
        (a_claim("ratio", 0.2), 8.0, REPRODUCED),
        (a_claim("ratio", 0.2), 7.9, NOT_REPRODUCED),
        (a_claim("exact", 0.3), 10.3, REPRODUCED),
        (a_claim("exact", 0.3), 10.31, NOT_REPRODUCED),
        (a_claim("exact", 0), 10.0, REPRODUCED),
        (a_claim("ratio", 0, high=20.0), 20.0, REPRODUCED),
        (a_claim("ratio", 0, high=20.0), 20.1, NOT_REPRODUCED),
        (a_claim("ratio", 0.1, high=20.0), 22.0, REPRODUCED),
        (a_claim("shape", 0), 10.0, REPRODUCED),
        (a_claim("shape", 0), 1e9, REPRODUCED),
        (a_claim("shape", 0), 9.9, NOT_REPRODUCED),
        (a_claim("shape", 0, high=20.0), 20.1, NOT_REPRODUCED),
        (a_claim("shape", 0, value=0.0, high=9.0), 3.0, REPRODUCED),
        (a_claim("shape", 0, value=0.0, high=9.0), 9.1, NOT_REPRODUCED),
    ],
)
def test_a_number_is_judged_by_kind_and_tolerance(
    claim: Claim, measured: float, verdict: str
) -> None:
    assert claim.judge(measured).verdict == verdict


def test_a_miss_says_by_how_much_and_what_is_allowed() -> None:
    assert a_claim("ratio", 0.15).judge(7.0).reason == "30.0 % below, and 15 % is allowed"
    assert a_claim("exact", 0.3).judge(10.5).reason == "0.5 above, and 0.3 is allowed"
    percent = replace(a_claim("exact", 0.3), unit="%")
    assert percent.judge(10.5).reason == "0.5 points above, and 0.3 points are allowed"
    share = replace(a_claim("ratio", 0.15), unit="%")
    assert share.judge(7.5).reason == "0.75 × the claim, and 0.85 to 1.15 × is allowed"
    error = replace(a_claim("shape", 0, value=0.0, high=9.0), unit="%")
    assert error.judge(548.3).off == "539 points above"
    assert error.judge(2_683.0).off == "2,674 points above"
    assert a_claim("exact", 0).judge(10.5).reason == "0.5 above, and none is allowed"
    at_least = a_claim("shape", 0, value=3.0)
    assert at_least.judge(2.0).reason == "33.3 % below; claimed: at least 3"
    assert at_least.judge(2.0).off == "33.3 % below"
    assert at_least.judge(4.0).off == ""
    order = replace(at_least, value=1, unit=HOLDS)
    assert order.judge(0.0)[:4] == (NOT_REPRODUCED, 0.0, "", "claimed: to hold")


def test_numbers_are_told_with_their_unit_and_tolerances_with_theirs() -> None:
    rate = replace(a_claim("shape", 0, value=2.7, high=8.0), unit="×")
    assert (rate.claimed, rate.allowed, rate.told(3.25)) == ("2.7 to 8 ×", "none", "3.25 ×")
    error = replace(a_claim("shape", 0, value=0.0, high=9.0), unit="%")
    assert error.claimed == "at most 9 %"
    assert replace(a_claim("shape", 0), unit="s").claimed == "at least 10 s"
    tokens = replace(a_claim("exact", 2, value=133_966), unit="tokens")
    assert (tokens.claimed, tokens.allowed) == ("133,966 tokens", "± 2 tokens")
    assert replace(a_claim("exact", 0.3), unit="%").allowed == "± 0.3 points"
    assert a_claim("ratio", 0.15).allowed == "± 15 %"
    assert replace(a_claim("ratio", 0.15), unit="%").allowed == "0.85 to 1.15 ×"
    assert ONE.told(30.97, error=11.2) == "31 ± 11"
    assert ONE.told(0.8419, error=0.113) == "0.84 ± 0.11"
    assert ONE.told(12_345.6, error=1_234.5) == "12,346 ± 1,234"
    order = replace(a_claim("shape", 0, value=1), unit=HOLDS)
    assert order.claimed == "to hold"
    assert (order.told(1.0), order.told(0.0)) == ("holds", "does not hold")


def test_what_the_experiment_says_is_added() -> None:
    verdict = ONE.judge(10.0, "surrogate lengths")
    assert verdict.reason == "surrogate lengths"
    assert ONE.judge(15.0, "surrogate lengths").reason.endswith("; surrogate lengths")


def test_one_seed_is_said_to_be_one() -> None:
    verdict = ONE.judge(10.0, "why", Spread(1, 10.0, 10.0, math.nan))
    assert verdict.reason == "one seed, so its noise is not known; why"
    assert not verdict.is_within_noise


def test_a_mean_that_is_nearer_to_a_bound_than_its_noise_says_so() -> None:
    close = ONE.judge(11.5, "", Spread(3, 11.2, 11.8, 0.7))  # at most 12 is allowed
    assert close.is_within_noise
    assert close.verdict == REPRODUCED
    assert close.reason == (
        "15.0 % above; mean of 3 seeds, 11.2 to 11.8; "
        "the bound 12 is within the mean's noise, ± 0.7"
    )
    missed = ONE.judge(12.5, "", Spread(3, 12.2, 12.8, 0.7))
    assert missed.is_within_noise
    assert missed.verdict == NOT_REPRODUCED
    sure = ONE.judge(11.5, "", Spread(3, 11.4, 11.6, 0.4))
    assert not sure.is_within_noise
    assert sure.reason == "15.0 % above; mean of 3 seeds, 11.4 to 11.6"


def test_a_claim_without_an_upper_end_has_noise_at_its_lower_one_only() -> None:
    claim = a_claim("shape", 0, value=3.0)
    assert claim.judge(3.1, "", Spread(3, 2.9, 3.3, 0.5)).is_within_noise
    assert not claim.judge(1e9, "", Spread(3, 1e9, 1e9, 1e6)).is_within_noise


@pytest.mark.parametrize("measured", [None, math.nan])
def test_what_was_not_measured_is_not_reproduced(measured: float | None) -> None:
    verdict = ONE.judge(measured, "needs the trace")
    assert verdict.verdict == NOT_REPRODUCED
    assert math.isnan(verdict.ratio)
    assert verdict.reason == "not measured: needs the trace"


def test_the_ratio_to_a_range_is_to_its_nearer_end() -> None:
    claim = a_claim("ratio", 0, high=20.0)
    assert claim.judge(5.0).ratio == 0.5
    assert claim.judge(15.0).ratio == 1.0
    assert claim.judge(40.0).ratio == 2.0


@pytest.mark.parametrize(
    "change", [{"kind": "rough"}, {"tolerance": -0.1}, {"kind": "shape"}, {"high": 9.0}]
)
def test_a_claim_without_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match="claim one"):
        replace(ONE, **change)  # type: ignore[arg-type]


@given(POSITIVE, st.floats(0, 0.9), POSITIVE, POSITIVE)
def test_a_wider_tolerance_never_turns_a_verdict_down(
    value: float, tolerance: float, measured: float, wider: float
) -> None:
    for kind in ("exact", "ratio"):
        claim = a_claim(kind, tolerance, value=value)
        if claim.judge(measured).verdict == REPRODUCED:
            assert replace(claim, tolerance=tolerance + wider).judge(measured).verdict == REPRODUCED


@given(POSITIVE, st.floats(0, 0.9), st.sampled_from(KINDS))
def test_the_paper_reproduces_itself(value: float, tolerance: float, kind: str) -> None:
    claim = a_claim(kind, 0 if kind == "shape" else tolerance, value=value)
    verdict = claim.judge(value)
    assert verdict.verdict == REPRODUCED
    assert verdict.ratio == 1.0


def test_ids_are_unique_and_simple() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert len(ids) == len(set(ids))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in ids)


def test_no_tolerance_is_wider_than_was_set() -> None:
    # 15 % for ShareGPT and what is like it, 25 % for Alpaca and seconds, 0.3 points for hit rates.
    for claim in CLAIMS:
        if claim.kind == "exact":
            assert claim.tolerance in (0, 0.3)
        else:
            is_loose = "alpaca" in claim.id or claim.id.startswith("sarathi")
            assert claim.tolerance <= (0.25 if is_loose else 0.15)


def test_claims_are_found_by_id_and_by_paper() -> None:
    assert find_claim("vllm-orca-max-batch").value == 7
    assert {claim.figure for claim in claims_of("sarathi")} == {"T4"}
    with pytest.raises(InvalidConfig, match="no claim is called 'nothing'"):
        find_claim("nothing")


def test_arithmetic_is_not_said_to_be_a_papers() -> None:
    assert claims_of("closed form") == tuple(
        claim for claim in CLAIMS if claim.id.startswith("closed-form")
    )
    assert not claims_of("Orca (Yu")


def test_what_follows_from_given_numbers_is_arithmetic_and_counted_apart() -> None:
    given_ids = {claim.id for claim in CLAIMS if claim.is_arithmetic}
    assert given_ids == {
        "vllm-orca-max-batch",
        "vllm-fig13-sharegpt-orca-max",
        "vllm-fig13-alpaca-orca-max",
        "nano-vllm-output-tokens",
    }


def test_what_cannot_fail_or_is_our_own_choice_is_no_claim() -> None:
    # The direction of a mistake is arithmetic; what our own prompts share is our choice.
    for name in ("benchmark", "sglang"):
        assert not any(claim.id.startswith(name) for claim in CLAIMS)
