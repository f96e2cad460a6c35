"""The table of verdicts: every claim has a row, and experiments run once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.experiments.toy import Toy
from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import EXPERIMENTS, Result
from toolkit.experiments.catalogue.basis import TRACES_VARIABLE
from toolkit.experiments.claims.judging import COLUMNS, VerdictTable, verdict_table, verdicts
from toolkit.experiments.claims.table import CLAIMS


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    toy = Toy()
    for name in list(EXPERIMENTS):
        monkeypatch.delitem(EXPERIMENTS, name)
    monkeypatch.setitem(EXPERIMENTS, "toy", toy)
    return toy


def test_every_claim_has_a_row_and_a_verdict(toy: Toy) -> None:
    table = verdicts(progress=False)
    assert list(table.columns) == COLUMNS
    assert table["id"].tolist() == [claim.id for claim in CLAIMS]
    assert set(table["verdict"]) == {"reproduced", "not reproduced"}
    assert table["reason"].where(table["verdict"] == "not reproduced", "said").str.len().min() > 0
    rows = table.set_index("id")
    assert rows.loc["vllm-orca-max-batch", ["measured", "verdict"]].tolist() == [7.0, "reproduced"]
    missing = rows.loc["nano-vllm-output-tokens"]
    assert math.isnan(missing["measured"])
    assert missing["reason"] == "not measured: needs <a model>"
    assert rows.loc["sarathi-both-tbt", "reason"] == (
        "not measured: no experiment that ran measures it"
    )


def test_only_what_is_asked_for_runs(toy: Toy) -> None:
    assert len(verdicts(only="Sarathi", progress=False)) == 9
    assert toy.num_runs == 0
    assert verdicts(only="toy", progress=False)["id"].tolist() == list(toy.CLAIMS)
    assert verdicts(only=["vllm-orca-max-batch"], progress=False)["experiment"].tolist() == ["toy"]
    assert toy.num_runs == 2
    with pytest.raises(InvalidConfig, match="only='nothing'"):
        verdicts(only="nothing")


def test_a_folder_keeps_results_of_one_size_and_seed(toy: Toy, tmp_path: Path) -> None:
    first = verdicts(only="toy", folder=tmp_path, progress=False)
    again = verdicts(only="toy", folder=tmp_path, progress=False)
    assert toy.num_runs == 1
    assert first.equals(again)
    verdicts(only="toy", folder=tmp_path, seed=1, progress=False)
    verdicts("paper", only="toy", folder=tmp_path, seed=1, progress=False)
    assert toy.num_runs == 3
    assert Result.load(tmp_path / "toy").size == "paper"


def test_what_was_kept_under_another_basis_is_run_again(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TRACES_VARIABLE, raising=False)
    kept = tmp_path / "kept"
    verdicts(only="toy", folder=kept, progress=False)
    traces = tmp_path / "traces"
    traces.mkdir()
    (traces / "mooncake_conversation.jsonl").write_text("{}")
    monkeypatch.setenv(TRACES_VARIABLE, str(traces))
    verdicts(only="toy", folder=kept, progress=False)
    assert toy.num_runs == 2
    verdicts(only="toy", folder=kept, progress=False)
    assert toy.num_runs == 2
    facts = json.loads((kept / "toy" / "experiment.json").read_text())
    facts["basis"]["sources"] = "of another version"
    (kept / "toy" / "experiment.json").write_text(json.dumps(facts))
    verdicts(only="toy", folder=kept, progress=False)
    assert toy.num_runs == 3


def test_a_row_says_of_how_many_seeds_it_is_and_how_they_scatter(toy: Toy) -> None:
    assert verdicts(only="toy", progress=False)["num_seeds"].tolist() == [0, 0]
    toy.sampled = (7.0,)
    one = verdicts(only="toy", progress=False)
    assert one["num_seeds"].tolist() == [1, 0]
    assert math.isnan(one["error"].iloc[0])
    assert (
        one.summary() == "1 of 1 arithmetic claims reproduced; 1 from a single seed; 1 not measured"
    )
    toy.sampled = (6.0, 7.0, 8.0)
    assert verdict_table([], []).summary() == "0 claims, none of them measured"
    three = verdicts(only="toy", progress=False)
    assert three["error"].iloc[0] == pytest.approx(2.484, abs=1e-3)
    assert three["is_within_noise"].tolist() == [True, False]
    assert "1 could turn with other seeds" in three.summary()
    assert three.shown().groups[0].lines[0].measured == "7.0 ± 2.5 requests"
    toy.sampled = (7.0, 7.0 + 1e-14)
    assert verdicts(only="toy", progress=False)["error"].iloc[0] == 0.0


def test_an_unknown_size_is_refused_before_anything_runs(toy: Toy) -> None:
    with pytest.raises(InvalidConfig, match="size='huge'"):
        verdicts("huge")
    assert toy.num_runs == 0


def test_the_table_tells_the_truth_in_a_cell(toy: Toy) -> None:
    table = verdict_table([toy.run()], CLAIMS)
    assert table.summary() == f"1 of 1 arithmetic claims reproduced; {len(CLAIMS) - 1} not measured"
    html = table._repr_html_()
    assert "needs &lt;a model&gt;" in html
    assert "at least 3" in html
    part = VerdictTable(table[["id", "verdict"]])
    assert part._repr_html_().startswith("<div>")
    assert "dtype" not in repr(part)
    assert repr(part).splitlines()[0].split() == ["id", "verdict"]
    assert repr(table).startswith(table.summary())
    assert isinstance(table.head(3).shape, tuple)


def test_by_default_a_table_is_of_the_claims_of_its_experiments(toy: Toy) -> None:
    assert list(verdict_table([toy.run()])["id"]) == [
        claim.id for claim in CLAIMS if claim.id in Toy.CLAIMS
    ]
