"""Chromium, a JupyterLab that all browser tests share, and pages with one widget."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.bare import BarePage
from tests.browser.lab import Lab, Notebook
from tests.widgets.conftest import FakeComm

pytestmark = pytest.mark.browser
_SIZE = {"width": 1100, "height": 900}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def chromium_path() -> str:
    """Where Chromium is; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("no Chromium on this machine")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium.

    For a module, not the session: while Playwright is in use, its event loop counts as running,
    and asynchronous tests elsewhere could not run theirs.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = chromium_path()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def bare(chromium: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BarePage]]:
    """Show a widget in an empty page: ``bare(lambda: BlockMap(record))``."""
    from ipywidgets.widgets import widget as ipywidgets_widget

    def create_comm(*, data: dict[str, Any], **_: Any) -> FakeComm:
        return FakeComm("comm", dict(data["state"]))

    monkeypatch.setattr(ipywidgets_widget.comm, "create_comm", create_comm)
    contexts, pages = [], []

    def show(make: Callable[[], Any], *, theme: str = "light", width: int = 900) -> BarePage:
        contexts.append(chromium.new_context(viewport={"width": width, "height": 700}))
        pages.append(BarePage(contexts[-1].new_page(), make(), theme=theme))
        return pages[-1]

    yield show
    for context in contexts:
        context.close()
    ipywidgets_widget.Widget.close_all()
    assert [page.errors for page in pages if page.errors] == []


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab server."""
    chromium_path()
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    server.close()


@contextmanager
def notebooks_of(chromium: Any, server: Lab, name: str) -> Iterator[Callable[..., Notebook]]:
    """Give a function that opens notebooks; an error on a console fails who used it."""
    context = chromium.new_context(viewport=_SIZE)
    notebooks: list[Notebook] = []

    def open_notebook(cells: list[str] | None = None, *, path: str | None = None) -> Notebook:
        if path is None:
            path = server.write(f"{re.sub('[^a-z0-9_]', '_', name)}_{len(notebooks)}", cells or [])
        url = f"{server.url}/lab/workspaces/{len(notebooks)}/tree/{path}?reset"
        notebooks.append(Notebook(context.new_page(), url, path))
        return notebooks[-1]

    yield open_notebook
    context.close()
    assert [notebook.errors for notebook in notebooks if notebook.errors] == []


@pytest.fixture
def lab(
    chromium: Any, lab_server: Lab, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Notebook]]:
    """Open a notebook: ``lab(["cell", "cell"]).run_all()``; console errors fail the test.

    ``lab(path="same.ipynb")`` opens one that is there, in another tab.
    """
    with notebooks_of(chromium, lab_server, request.node.name) as open_notebook:
        yield open_notebook


@pytest.fixture(scope="module")
def shared_lab(
    chromium: Any, lab_server: Lab, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Notebook]]:
    """As ``lab``, for a notebook that the tests of a module share: opening one takes seconds."""
    with notebooks_of(chromium, lab_server, request.node.name) as open_notebook:
        yield open_notebook
