"""The check of policies finds what is wrong with those that are wrong, and nothing with fcfs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from toolkit.experiments.studies import policy_check
from toolkit.experiments.studies.policy_check import BAD, FINE, LOOK, PolicyCheck, check_policy

pytestmark = pytest.mark.slow


def verdicts(check: PolicyCheck) -> dict[str, str]:
    return dict(zip(check.table["question"], check.table["verdict"], strict=True))


def test_first_come_first_served_is_fine() -> None:
    check = check_policy("fcfs")
    untimed = check.table[check.table["unit"] != "µs"]
    assert (untimed["verdict"] == FINE).all(), check
    assert (untimed["value"] == untimed["fcfs"]).all()
    assert "longest wait" in repr(check)
    assert "<table" in check._repr_html_()


def test_a_policy_that_lets_long_prompts_starve_is_found() -> None:
    def newest_first(request: Any, view: Any) -> float:
        return -request.arrival_s

    check = check_policy(newest_first)
    assert verdicts(check)["longest wait"] in (LOOK, BAD)
    assert check.policy == "newest_first"


def test_short_prompts_first_let_long_ones_starve_unless_these_grow_old() -> None:
    def short_but_patient(request: Any, view: Any) -> float:
        return request.num_prompt_tokens - 200 * (view.now_s - request.arrival_s)

    assert verdicts(check_policy("shortest-first"))["longest wait"] in (LOOK, BAD)
    assert verdicts(check_policy(short_but_patient))["longest wait"] == FINE


def test_a_policy_that_keeps_others_waiting_is_found() -> None:
    class FewAtATime:
        def admit(self, request: Any, view: Any) -> bool:
            return len(view.running) < 6

    assert verdicts(check_policy(FewAtATime))["budget kept back"] == BAD


def test_a_policy_that_raises_is_found_and_its_warnings_are_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(request: Any, view: Any) -> int:
        raise ZeroDivisionError("out of reach")

    with caplog.at_level(logging.WARNING):
        check = check_policy(broken)
    row = check.table.set_index("question").loc["kinds of overruling"]
    assert row["verdict"] == BAD
    assert row["what"] == "rank() raised ZeroDivisionError: out of reach"
    assert not caplog.records


def test_a_rank_of_another_signature_is_told_before_any_load_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(policy_check, "make_loads")

    def forgetful(request: Any) -> int:
        return 0

    check = check_policy(forgetful)
    assert "rank() raised TypeError" in repr(check)
    assert "takes 1 positional argument but 2 were given" in repr(check)
    assert verdicts(check)["longest wait"] == BAD


def test_a_policy_that_lets_the_short_wait_for_the_long_is_found() -> None:
    def longest_first(request: Any, view: Any) -> int:
        return -request.num_prompt_tokens

    assert verdicts(check_policy(longest_first))["mean wait"] in (LOOK, BAD)


def test_the_words_say_the_measure_and_what_is_fine() -> None:
    table = check_policy("shortest-first").table.set_index("question")
    for question, fine in {"longest wait": "3", "recomputed tokens": "5%"}.items():
        assert f"fine up to {fine}" in table.at[question, "what"]
    ratio = table.at["longest wait", "value"] / table.at["longest wait", "fcfs"]
    assert table.at["longest wait", "what"].startswith(f"{ratio:.2g} times")
