"""``toolkit experiment`` and ``toolkit report``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.experiments.toy import Toy
from toolkit.cli import app
from toolkit.experiments.catalogue import EXPERIMENTS, Result

runner = CliRunner()


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    toy = Toy()
    monkeypatch.setitem(EXPERIMENTS, "toy", toy)
    return toy


def test_list_names_every_experiment() -> None:
    result = runner.invoke(app, ["experiment", "list"])
    assert result.exit_code == 0
    for name in EXPERIMENTS:
        assert name in result.stdout
    *_, last = result.stdout.splitlines()
    assert last.startswith(
        "prefix_cache_hit_rate: to judge its claims it needs the trace: let TOOL"
    )


def test_run_prints_verdicts_and_keeps_all_that_a_report_needs(tmp_path: Path) -> None:
    command = ["experiment", "run", "toy", "--size", "quick", "--seed", "5"]
    result = runner.invoke(app, [*command, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "1 of 1 arithmetic claims reproduced; 1 not measured" in result.stdout
    names = {path.name for path in (tmp_path / "toy").iterdir()}
    assert names == {"experiment.json", "curve.csv", "figure.png", "figure.pdf"}
    assert Result.load(tmp_path / "toy").seed == 5
    shown = runner.invoke(app, ["report", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_a_wrong_name_is_said_before_anything_runs(toy: Toy, tmp_path: Path) -> None:
    result = runner.invoke(app, ["experiment", "run", "toy", "nothing", "-o", str(tmp_path)])
    assert result.exit_code == 1
    assert "no experiment is called 'nothing'" in result.stderr
    assert toy.num_runs == 0
