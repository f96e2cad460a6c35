"""Another process runs the toolkit of the one that started it, with nothing in between."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import toolkit
from toolkit.runtime.tensor_parallel.command import python_command


def said_by_a_worker() -> str:
    done = subprocess.run(python_command(["nowhere", "0"]), capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize("place", ["", "."])
def test_a_file_of_the_users_is_no_part_of_the_standard_library(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("random", "queue", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of mine')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(place)
    said = said_by_a_worker()
    assert "invalid literal for int() with base 10: 'nowhere'" in said  # all is imported by then
    assert "a file of mine" not in said


def test_the_path_is_that_of_the_process_that_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "safetensors.py").write_text("raise SystemExit('found on the path')")
    monkeypatch.syspath_prepend(tmp_path)
    assert said_by_a_worker() == "found on the path\n"


def test_another_toolkit_is_refused_with_the_places_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = tmp_path / "toolkit" / "__init__.py"
    other.parent.mkdir()
    other.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    said = said_by_a_worker()
    assert f"found the toolkit at {other}, the one that started it runs" in said
    assert str(Path(toolkit.__file__).resolve()) in said
