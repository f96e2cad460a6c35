"""The part of ``toolkit doctor`` about notebooks: which front end is in use, and what works there.

Run in a cell (``!toolkit doctor``) it sees the kernel's environment; in a terminal, the terminal's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from toolkit.cli.findings import Fact

__all__ = ["FrontEnd", "front_end", "front_ends"]

_PIP = "pip install 'llm-serving-toolkit[notebook]'"
_FALLBACK = "tables, and pictures by .to_png() and .to_html()"


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """Where cells are shown, and what the widgets do there; docs/front_ends.md says more."""

    name: str
    works: str


_COLAB = FrontEnd(
    "Google Colab",
    "untested; by its documentation widgets are live, with anywidget's code from a web site",
)
_VS_CODE = FrontEnd(
    "VS Code",
    "untested; by its documentation widgets are live, with anywidget's code from the kernel's "
    'environment or from "jupyter.widgetScriptSources"',
)
_JUPYTER = FrontEnd(
    "a Jupyter server (JupyterLab or Notebook 7)",
    "JupyterLab: everything, tested in Chromium; Notebook 7: untested, made of the same parts",
)
_TERMINAL = FrontEnd("a plain terminal", f"no live widgets; {_FALLBACK}")


def front_end(environ: Mapping[str, str] | None = None) -> FrontEnd:
    """Tell the front end from the environment that it gives to kernels and terminals."""
    environ = os.environ if environ is None else environ
    # Colab and VS Code first: their kernels may be children of a Jupyter server as well.
    if "COLAB_RELEASE_TAG" in environ or "COLAB_GPU" in environ:
        return _COLAB
    if (
        any(name.startswith("VSCODE_") for name in environ)
        or environ.get("TERM_PROGRAM") == "vscode"
    ):
        return _VS_CODE
    if "JPY_SESSION_NAME" in environ or "JPY_PARENT_PID" in environ:
        return _JUPYTER
    return _TERMINAL


def front_ends() -> Iterator[Fact]:
    """Say which front end is in use, what is installed for widgets, and whether it fits."""
    here = front_end()
    yield Fact("in use", here.name)
    yield Fact("widgets there", here.works)
    for package, name in (("jupyterlab", "JupyterLab"), ("notebook", "Notebook")):
        found = _version(package)
        yield Fact(name, found or "not installed here")
    for package, extension in (
        ("anywidget", "anywidget"),
        ("ipywidgets", "@jupyter-widgets/jupyterlab-manager"),
    ):
        yield _widget_package(package, extension)


def _widget_package(package: str, extension: str) -> Fact:
    """Say whether the Python half and the half that JupyterLab loads are there and agree."""
    found = _version(package)
    if found is None:
        return Fact(package, f"missing: {_FALLBACK}", _PIP)
    if _version("jupyterlab") is None:
        return Fact(package, found)  # the other half is wherever the front end runs
    in_lab = _extension_version(extension)
    if in_lab is None:
        advice = f"JupyterLab finds no {extension}: {_PIP} in the environment it runs in"
        return Fact(package, found, advice)
    # The manager has versions of its own; ipywidgets 8 is made for its version 5.
    expected = found if package == extension else {"8": "5"}.get(_major(found), in_lab)
    if _series(expected, in_lab) != _series(in_lab, expected):
        advice = f"JupyterLab has {extension} {in_lab}: reinstall {package}, then reload the page"
        return Fact(package, found, advice)
    return Fact(package, f"{found}, and JupyterLab has {extension} {in_lab}")


def _series(text: str, other: str) -> tuple[str, ...]:
    """Return major and minor version, or as much of them as both texts say."""
    return tuple(text.split(".")[: min(2, text.count(".") + 1, other.count(".") + 1)])


def _major(text: str) -> str:
    return text.partition(".")[0]


def _extension_version(name: str) -> str | None:
    """Return the version of an extension that JupyterLab would load; None when it has none."""
    from jupyter_core.paths import jupyter_path

    for folder in jupyter_path("labextensions"):
        package = Path(folder) / name / "package.json"
        if package.exists():
            return str(json.loads(package.read_text(encoding="utf-8"))["version"])
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
