"""toolkit doctor tells the front ends apart by what they leave in the environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.cli import doctor_front_end
from toolkit.cli.doctor_front_end import front_end, front_ends


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "terminal"),
        ({"JPY_SESSION_NAME": "/x.ipynb"}, "JupyterLab"),
        ({"JPY_PARENT_PID": "7"}, "JupyterLab"),
        ({"VSCODE_PID": "7", "JPY_PARENT_PID": "7"}, "VS Code"),
        ({"TERM_PROGRAM": "vscode"}, "VS Code"),
        ({"COLAB_RELEASE_TAG": "r", "JPY_PARENT_PID": "7"}, "Colab"),
    ],
)
def test_the_environment_names_the_front_end(environ: dict[str, str], name: str) -> None:
    assert name in front_end(environ).name


def test_what_was_not_tried_is_marked_untested() -> None:
    for environ in ({"COLAB_GPU": "1"}, {"VSCODE_PID": "1"}):
        assert front_end(environ).works.startswith("untested")


class _Machine:
    """A pretended installation: packages by version, and the extensions JupyterLab finds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packages: dict[str, str | None] = {"jupyterlab": "4.6.6"}
        self._folder = folder
        monkeypatch.setattr(doctor_front_end, "_version", self.packages.get)
        monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda name: [str(folder)])

    def extend(self, name: str, version: str) -> None:
        (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / name / "package.json").write_text(json.dumps({"version": version}))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Machine:
    return _Machine(tmp_path, monkeypatch)


def advice() -> dict[str, str]:
    return {fact.name: fact.advice for fact in front_ends()}


def test_nothing_is_advised_where_both_halves_fit(machine: _Machine) -> None:
    machine.packages |= {"anywidget": "0.11.0", "ipywidgets": "8.1.9"}
    machine.extend("anywidget", "0.11.2")
    machine.extend("@jupyter-widgets/jupyterlab-manager", "5.0.15")
    assert not any(advice().values())


def test_halves_that_do_not_fit_are_named(machine: _Machine) -> None:
    machine.packages |= {"anywidget": "0.11.0", "ipywidgets": "8.1.9"}
    machine.extend("anywidget", "0.9.13")
    machine.extend("@jupyter-widgets/jupyterlab-manager", "3.1.0")
    assert "0.9.13" in advice()["anywidget"]
    assert "3.1.0" in advice()["ipywidgets"]


def test_a_missing_half_is_advised_on_either_side(machine: _Machine) -> None:
    machine.packages |= {"ipywidgets": "8.1.9"}
    assert "pip install" in advice()["anywidget"]
    assert "JupyterLab finds no" in advice()["ipywidgets"]
    del machine.packages["jupyterlab"]  # the front end is elsewhere: nothing to say of it
    assert not advice()["ipywidgets"]
