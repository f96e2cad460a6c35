"""A table of verdicts as a newcomer reads it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from toolkit.experiments import verdict_table
from toolkit.experiments.catalogue import Result
from toolkit.experiments.claims.judging import VerdictTable
from toolkit.experiments.claims.shown import Line
from toolkit.experiments.claims.table import find_claim

MAX, ORACLE, RATE = "vllm-fig13-sharegpt-orca-max", "vllm-fig13-sharegpt-orca-oracle", "vllm-fig12"
LENGTHS = "surrogate lengths"


def judged(
    *,
    size: str = "paper",
    reasons: dict[str, str] | None = None,
    samples: dict[str, Sequence[float]] | None = None,
    **measured: float,
) -> VerdictTable:
    """Judge claims of the catalogue, of an experiment that measured what is said."""
    ids = {"orca_max": MAX, "orca_oracle": ORACLE, "over_max": f"{RATE}-over-max"}
    results = [
        Result(
            name,
            size,
            {},
            {ids[claim]: value for claim, value in measured.items()},
            {ids[claim]: reason for claim, reason in (reasons or {}).items()},
            samples={ids[claim]: values for claim, values in (samples or {}).items()},
        )
        for name in ("where_the_memory_goes", "latency_against_load")
    ]
    return verdict_table(results, map(find_claim, ids.values()))


def lines(table: VerdictTable) -> list[Line]:
    return [line for group in table.shown().groups for line in group.lines]


def test_a_row_says_verdict_claim_tolerance_measure_and_by_how_much_it_is_off() -> None:
    table = judged(orca_max=7.0, orca_oracle=10.0, reasons={"over_max": "takes a knee"})
    good, bad, missing = lines(table)
    assert (good.mark, good.verdict, good.off, good.why) == ("✓", "reproduced", "", "")
    assert (bad.mark, bad.verdict, bad.off) == ("✗", "not reproduced", "26.6 % below")
    assert (bad.claimed, bad.tolerance, bad.measured) == ("13.62 requests", "± 15 %", "10 requests")
    assert (missing.mark, missing.verdict, missing.measured) == ("–", "not measured", "")
    assert (missing.claimed, missing.why) == ("2.7 to 8 ×", "takes a knee")
    assert [group.source for group in table.shown().groups] == [
        "vLLM (Kwon et al., SOSP 2023), figure 13",
        "vLLM (Kwon et al., SOSP 2023), figure 12",
    ]


def test_a_reason_stands_where_one_is_due_and_what_rows_share_is_a_footnote() -> None:
    table = judged(
        orca_max=7.0,
        orca_oracle=10.0,
        over_max=1.0,
        reasons={
            "orca_max": f"{LENGTHS}; as it should",
            "orca_oracle": f"{LENGTHS}; another card",
            "over_max": "one model alone",
        },
    )
    assert [line.why for line in lines(table)] == ["¹", "another card ¹", "one model alone"]
    assert table.shown().notes == (f"¹ {LENGTHS}",)
    assert "as it should" in table["reason"].iloc[0]


def test_noise_and_size_are_said_once_below() -> None:
    table = judged(orca_max=7.0, size="quick", samples={"orca_max": (5.0, 7.0, 9.0)})
    first, second, _ = lines(table)
    assert first.measured == "7.0 ± 5.0 requests"
    assert first.why == "¹"
    assert (second.verdict, second.why) == ("not measured", "")
    assert table.shown().notes == (
        "¹ within noise: could turn with other seeds",
        "± after a measured number: half the 95 % interval of its mean over 3 seeds",
        'quick size; size="paper" (in a shell --size paper) is the papers\' own',
    )


def test_what_is_arithmetic_is_counted_apart() -> None:
    told = judged(orca_max=7.0, orca_oracle=10.0).summary()
    assert told == (
        "0 of 1 measured claims reproduced; 1 of 1 arithmetic claims reproduced; 1 not measured"
    )


def test_a_figure_has_one_heading() -> None:
    claims = map(find_claim, (MAX, f"{RATE}-over-max", ORACLE))
    sources = [group.source for group in verdict_table([], claims).shown().groups]
    assert [source.rpartition(", ")[2] for source in sources] == ["figure 13", "figure 12"]


def test_text_and_page_have_the_same_words() -> None:
    table = judged(orca_max=7.0, orca_oracle=10.0, reasons={"over_max": "<a knee>"})
    text, html = repr(table), table._repr_html_()
    for word in ("✓ reproduced", "✗ not reproduced", "– not measured"):
        assert word in text
        assert word[2:] in html
    assert "\n    10 requests, claimed 13.62 requests (± 15 %): 26.6 % below\n" in text
    assert "\n    claimed 2.7 to 8 ×  <a knee>\n" in text
    assert "26.6 % below" in html
    assert text.splitlines()[0] == table.summary()
    assert "<a knee>" in text
    assert "&lt;a knee&gt;" in html
    assert "<a knee>" not in html


@pytest.mark.parametrize("verdict", ["reproduced", "not reproduced"])
def test_the_column_has_two_verdicts_and_the_table_a_third(verdict: str) -> None:
    table = judged(orca_max=7.0)
    assert verdict in set(table["verdict"])
    assert "not measured" not in set(table["verdict"])
    assert sum(line.verdict == "not measured" for line in lines(table)) == 2
