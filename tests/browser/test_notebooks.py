"""The notebooks with widgets, run and clicked in a real JupyterLab."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest

from tests.browser.lab import ROOT

pytestmark = pytest.mark.slow  # a JupyterLab, and a kernel for each


def has_widgets(path: Path) -> bool:
    return any("toolkit.widgets" in cell.source for cell in nbformat.read(path, 4).cells)


NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if has_widgets(path)]


def opened(lab, lab_server, path: Path):
    shutil.copy(path, lab_server.folder / path.name)
    notebook = lab(path=path.name)
    notebook.run_all()
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws(lab, lab_server, path: Path):
    notebook = opened(lab, lab_server, path)
    assert notebook.page.locator(".jp-OutputArea-output[data-mime-type*=stderr]").count() == 0
    widgets = notebook.widget()
    assert widgets.count() >= 1
    for index in range(widgets.count()):
        widgets.nth(index).scroll_into_view_if_needed()
        assert "Waiting for the kernel" not in widgets.nth(index).inner_text()


def test_the_map_of_the_cache_answers_to_slider_button_and_pointer(lab, lab_server):
    notebook = opened(lab, lab_server, ROOT / "notebooks/06_the_cache_as_a_map.ipynb")
    widget = notebook.widget()
    widget.scroll_into_view_if_needed()

    def picture() -> str:
        notebook.page.wait_for_timeout(400)
        return str(widget.locator("canvas").evaluate("(node) => node.toDataURL()"))

    at_first = picture()
    widget.locator("input[type=range]").fill("30")
    moved = picture()
    assert moved != at_first
    assert "After step 30 of " in widget.inner_text()
    widget.locator("button", has_text="▶").click()
    assert "After step 31 of " in (picture() and widget.inner_text())
    before = picture()
    widget.locator("canvas").hover(position={"x": 12, "y": 12})
    assert picture() != before
    assert "references" in widget.locator(".tk-tip").inner_text()
    widget.locator("canvas").click(position={"x": 12, "y": 12})
    assert "standing out" in (picture() and widget.inner_text())
