"""The session script goes through all of its stages where there is no GPU, with tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "kernels" / "bench" / "gpu_session.sh"


def session(out: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *words],
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(out), **environment},
        capture_output=True,
        text=True,
    )


def test_stages_fit_a_sitting_of_25_minutes(tmp_path: Path):
    stages = dict(line.split() for line in session(tmp_path, "--list").stdout.splitlines())
    assert list(stages)[:2] == ["tests", "single"]
    assert sum(map(int, stages.values())) < 25 * 60


def test_an_unknown_stage_is_refused(tmp_path: Path):
    done = session(tmp_path, "singel")
    assert done.returncode == 2
    assert "no stage singel" in done.stdout


@pytest.mark.slow
def test_a_dry_run_ends_its_stages_and_prints_a_table(tmp_path: Path):
    """One stage of each script; the others call the same ones with other words."""
    stages = ("tests", "single", "engine", "ladder", "tuning")
    done = session(tmp_path, "--dry-run", *stages)
    logs = {path.stem: path.read_text()[-1500:] for path in (tmp_path / "logs").iterdir()}
    assert done.returncode == 0, done.stdout
    journal = [line.split("\t") for line in (tmp_path / "gpu_session.tsv").read_text().splitlines()]
    assert [stage for stage, _, _ in journal] == ["tests", "single", "engine", "ladder", "tuning"]
    for stage, state, _ in journal:
        assert state == "done", logs[stage]
    for words in ("single tokens, 2 x 40", "ladder: naive", "tiny, 3 requests, transformers"):
        assert words in done.stdout
    assert "figures say nothing" in done.stdout


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_a_spent_budget_ends_with_the_table(tmp_path: Path):
    stages = [line.split()[0] for line in session(tmp_path, "--list").stdout.splitlines()]
    journal = tmp_path / "gpu_session.tsv"
    journal.write_text("".join(f"{stage}\tdone\t1\n" for stage in stages if stage != "ops"))
    done = session(tmp_path, "--dry-run", BUDGET="1")
    assert done.returncode == 0
    assert done.stdout.count("done before") == len(stages) - 1
    assert "== ops: no time left" in done.stdout
    assert "stage ops" in done.stdout
