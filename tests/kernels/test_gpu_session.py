"""The session script goes through all of its stages where there is no GPU, with tiny sizes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.deadline import eventually

SCRIPT = Path(__file__).resolve().parents[2] / "kernels" / "bench" / "gpu_session.sh"


def session(
    out: Path | str, *words: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *words],
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(out), **environment},
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def interpreter(folder: Path, stage: str) -> str:
    """Return a program in Python's place, which does in a stage what a line of shell says."""
    path = folder / "interpreter"
    path.write_text(
        "#!/bin/bash\n"
        f'case "$*" in *session_table*) exec {sys.executable} "$@" ;;\n'
        f'*session_check* | "-c "*) exit 0 ;; *) {stage} ;; esac\n'
    )
    path.chmod(0o755)
    return str(path)


def journal_of(folder: Path) -> list[list[str]]:
    return [line.split("\t") for line in (folder / "gpu_session.tsv").read_text().splitlines()]


def test_stages_fit_a_sitting_of_25_minutes(tmp_path: Path):
    lines = [line.split(maxsplit=2) for line in session(tmp_path, "--list").stdout.splitlines()]
    assert [stage for stage, _, _ in lines][:2] == ["tests", "single"]
    assert sum(int(seconds) for _, seconds, _ in lines) < 25 * 60
    assert all(about for _, _, about in lines)


def test_help_is_the_text_at_the_top(tmp_path: Path):
    done = session(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Measure all that needs a GPU")
    assert "BUDGET" in done.stdout
    assert "set -u" not in done.stdout


@pytest.mark.parametrize("word", ["singel", ".*", "single:100 engine", "--dryrun", ""])
def test_an_unknown_stage_is_refused(word: str, tmp_path: Path):
    done = session(tmp_path, word)
    assert done.returncode == 2
    assert f"no stage {word}" in done.stdout


@pytest.mark.parametrize("budget", ["15min", "-1", "1e3"])
def test_a_budget_that_is_no_number_of_seconds_is_refused(budget: str, tmp_path: Path):
    done = session(tmp_path, BUDGET=budget)
    assert done.returncode == 2
    assert f"BUDGET={budget} is no number of seconds" in done.stdout


def test_a_folder_is_taken_from_where_the_script_is_called(tmp_path: Path):
    python = interpreter(tmp_path, "exit 0")
    done = session("results", "single", cwd=tmp_path, PYTHON=python, BUDGET="0900")
    assert done.returncode == 0
    assert journal_of(tmp_path / "results") == [["single", "done", "0"]]
    assert "stage single" in done.stdout


def test_a_dry_run_leaves_everything_to_be_done(tmp_path: Path):
    python = interpreter(tmp_path, "exit 0")
    for dry in (["--dry-run"], []):
        done = session(tmp_path, *dry, PYTHON=python)
        assert done.returncode == 0
        assert "done before" not in done.stdout
    real, dry_run = ([row[:2] for row in journal_of(f)] for f in (tmp_path, tmp_path / "dry_run"))
    assert real == dry_run


def test_a_stage_that_fails_is_in_the_exit_code_and_the_others_run(tmp_path: Path):
    python = interpreter(tmp_path, '[[ "$*" != *single* ]]')
    done = session(tmp_path, "single", "prompts", PYTHON=python)
    assert done.returncode == 1
    states = [state for _, state, _ in journal_of(tmp_path)]
    assert states == ["failed with code 1", "done"]


def test_an_interrupt_ends_the_stage_and_the_session(tmp_path: Path):
    python = interpreter(tmp_path, f'echo $$ > "{tmp_path}/stage"; sleep 300')
    out = {"PYTHON": python, "OUT": str(tmp_path)}
    process = subprocess.Popen(
        [SCRIPT, "single", "prompts"],
        env={**os.environ, **out},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    number = tmp_path / "stage"
    while not (number.exists() and number.read_text().endswith("\n")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    eventually(lambda: not Path(f"/proc/{number.read_text().strip()}").exists())
    assert [line[:2] for line in journal_of(tmp_path)] == [["single", "interrupted"]]
    assert "stage single" in shown


@pytest.mark.slow
def test_a_dry_run_ends_its_stages_and_prints_a_table(tmp_path: Path):
    """One stage of each script; the others call the same ones with other words."""
    stages = ("tests", "single", "engine", "ladder", "tuning")
    done = session(tmp_path, "--dry-run", *stages)
    out = tmp_path / "dry_run"
    logs = {path.stem: path.read_text()[-1500:] for path in (out / "logs").iterdir()}
    assert done.returncode == 0, done.stdout
    journal = journal_of(out)
    assert [stage for stage, _, _ in journal] == ["tests", "single", "engine", "ladder", "tuning"]
    for stage, state, _ in journal:
        assert state == "done", logs[stage]
    for words in (
        "single tokens, 2 x 40",
        "ladder: naive",
        "engine: tiny, 3 requests, transformers",
    ):
        assert words in done.stdout
    assert "tests: the tests that are marked gpu; up to" in done.stdout
    assert "   done after" in done.stdout
    assert "%" not in done.stdout, "parts of what is possible mean nothing here"
    assert "figures say nothing" in done.stdout


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_a_spent_budget_ends_with_the_table(tmp_path: Path):
    stages = [line.split()[0] for line in session(tmp_path, "--list").stdout.splitlines()]
    journal = tmp_path / "dry_run" / "gpu_session.tsv"
    journal.parent.mkdir()
    journal.write_text("".join(f"{stage}\tdone\t1\n" for stage in stages if stage != "ops"))
    done = session(tmp_path, "--dry-run", BUDGET="1")
    assert done.returncode == 1
    assert done.stdout.count("done before") == len(stages) - 1
    assert "== ops: no time left" in done.stdout
    assert "stage ops" in done.stdout


def test_the_table_says_of_every_figure_its_stage_its_unit_and_its_part(tmp_path: Path):
    rung = {"rung": "naive", "batch": 1, "context": 8, "us": 2.0, "fraction_of_limit": 0.25}
    way = {"output_tokens_per_s": 9.0, "fraction_of_least_time": 0.5, "host_share": 0.1}
    metrics = {"silu_mul 1 x 8 triton us": {"median": 3.0}, "read limit GB/s": {"median": 7.0}}
    ways = {"model": "qwen3-8b", "num_requests": 2, "ways": {"toolkit": way}, "is_dry_run": False}
    results = {
        "attention_ladder": {"is_dry_run": False, "rungs": [rung]},
        "offline_engine_qwen3-8b": ways,
        "offline_engine_invariant": ways,
        "ops": {"metrics": metrics},
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    table = subprocess.run(
        [sys.executable, SCRIPT.with_name("session_table.py")],
        env={**os.environ, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [re.split(r"  +", line) for line in table.stdout.splitlines()] == [
        ["ladder: naive, 1 x 8", "2.0 us", "25% of read bandwidth"],
        ["ops: silu_mul 1 x 8 triton", "3.0 us"],
        ["ops: read limit", "7.0 GB/s"],
        ["invariant: qwen3-8b, 2 requests, toolkit", "9.0 tokens/s", "50% of limit, host 10%"],
        ["large: qwen3-8b, 2 requests, toolkit", "9.0 tokens/s", "50% of limit, host 10%"],
    ]
