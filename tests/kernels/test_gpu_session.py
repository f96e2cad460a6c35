"""The session script goes through all of its stages where there is no GPU, with tiny sizes."""

from __future__ import annotations

import json
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
def test_a_dry_run_ends_every_stage_and_prints_a_table(tmp_path: Path):
    done = session(tmp_path, "--dry-run")
    logs = {path.stem: path.read_text()[-1500:] for path in (tmp_path / "logs").iterdir()}
    assert done.returncode == 0, done.stdout
    journal = (tmp_path / "gpu_session.tsv").read_text().splitlines()
    stages = session(tmp_path, "--list").stdout.splitlines()
    assert len(journal) == len(stages)
    for line in journal:
        stage, state, _ = line.split("\t")
        assert state == "done", logs[stage]
    assert "figures say nothing" in done.stdout
    for words in ("single tokens", "prompts", "a mixed batch", "ladder: naive", "transformers"):
        assert words in done.stdout
    engine = json.loads((tmp_path / "offline_engine_invariant.json").read_text())
    assert set(engine["ways"]) == {"toolkit", "batch-invariant"}
    again = session(tmp_path, "--dry-run")
    assert again.stdout.count("done before") == len(stages)


@pytest.mark.slow
def test_a_spent_budget_ends_with_the_table(tmp_path: Path):
    done = session(tmp_path, "--dry-run", "ops", "mixed", BUDGET="1")
    assert done.returncode == 0
    assert done.stdout.count("no time left") == 4  # as they are reached, and in the table
