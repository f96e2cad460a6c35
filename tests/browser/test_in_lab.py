"""What only a real JupyterLab shows: threads of the kernel, reloads, tabs, themes, exports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.lab import ROOT, shared_folder

pytestmark = pytest.mark.slow  # a JupyterLab and its kernels

ENGINE = """
import time
from tests.builders import make_engine, params
from toolkit.record import Record
from toolkit.widgets import BlockMap
engine = make_engine(num_blocks=120, max_num_seqs=6, recorder=Record())
for start in range(4):
    engine.add(list(range(1 + start, 20 + start)), params(max_tokens=60))
for _ in range(5):
    engine.step()
"""
MAP = "block_map = BlockMap(engine)\nblock_map"
# What needs the network, and would come before the picture.
VIEW = '<script type="application/vnd.jupyter.widget-view+json">'
# A cell that keeps the kernel for two seconds, as generate() does.
BLOCK = "until = time.time() + 2\nwhile time.time() < until:\n    engine.step()\n    time.sleep(.1)"


def shows(notebook, text: str, timeout_ms: int = 10_000) -> None:
    """Wait until the widget says something."""
    notebook.widget().get_by_text(text).first.wait_for(timeout=timeout_ms)


def picture(notebook) -> str:
    return str(notebook.widget().locator("canvas").evaluate("(node) => node.toDataURL()"))


@pytest.fixture(scope="module")
def opened(shared_lab):
    """A notebook with a live map; its engine has made some steps."""
    notebook = shared_lab([ENGINE, MAP])
    notebook.run_all()
    shows(notebook, "After step 4 of 4")
    return notebook


def steps_made(notebook) -> int:
    """Ask the kernel for the number of the engine's last step."""
    notebook.run("print('last step', engine.step_number)")
    return int(notebook.output().split("last step ")[-1].split("\\n")[0])


def shows_newest(notebook) -> None:
    step = steps_made(notebook)
    shows(notebook, f"After step {step} of {step}")


def test_the_theme_is_followed(opened):
    light = picture(opened)
    assert opened.widget().get_attribute("data-theme") == "light"
    opened.use_theme("JupyterLab Dark")
    opened.page.wait_for_function("() => document.querySelector('.tk').dataset.theme === 'dark'")
    opened.page.wait_for_timeout(200)
    assert picture(opened) != light
    opened.use_theme("JupyterLab Light")
    opened.page.wait_for_timeout(200)
    assert picture(opened) == light


def test_what_a_notebook_saves_of_a_widget_is_small(opened, lab_server):
    opened.save()
    saved = json.loads((lab_server.folder / opened.path).read_text())
    assert "widgets" not in saved["metadata"], "JupyterLab saves no state unless it is told to"
    (output,) = saved["cells"][1]["outputs"]
    assert len(json.dumps(output)) < 100_000


def test_a_view_follows_the_engine_while_a_cell_keeps_the_kernel_busy(opened):
    before = picture(opened)
    opened.run(BLOCK, wait=False)
    opened.page.wait_for_timeout(1500)
    status = "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"
    assert opened.page.evaluate(status) == "busy"
    during = picture(opened)
    assert during != before
    opened.wait_idle()
    shows_newest(opened)
    assert picture(opened) != during
    opened.page.wait_for_timeout(300)
    opened.run("print('pages', block_map._frames.num_views, block_map._frames.has_pending)")
    assert "pages 1 False" in opened.output()


def test_two_tabs_show_the_same_and_a_closed_one_holds_nobody_up(opened, shared_lab):
    opened.save()
    other = shared_lab(path=opened.path)
    shows_newest(other)
    step = steps_made(opened)
    opened.run("engine.step()")
    for notebook in (opened, other):
        shows(notebook, f"After step {step + 1} of {step + 1}")
    other.page.close()
    opened.run("for _ in range(3):\n    engine.step()\n    time.sleep(.3)")
    shows(opened, f"After step {step + 4} of {step + 4}")


def test_a_reload_shows_the_state_of_now(opened):
    shows_newest(opened)
    before = picture(opened)
    opened.save()
    opened.page.reload()
    opened.wait_open()
    shows_newest(opened)
    assert picture(opened) == before
    opened.run("engine.step()")
    shows_newest(opened)


def test_a_cell_that_is_run_again_leaves_nothing_behind(opened):
    count = "() => Object.keys(globalThis.llmServingToolkit).length"
    for _ in range(3):
        opened.run("block_map")
        opened.run(MAP)
    shows_newest(opened)
    assert opened.page.evaluate(count) == 1, "the module is imported once"


def test_run_all_with_a_busy_cell_next_ends_with_the_state_of_now(lab):
    notebook = lab([ENGINE, MAP, BLOCK])
    notebook.run_all()
    shows_newest(notebook)


def convert(path: Path, *options: str) -> str:
    """Convert a notebook as a reader would, on the command line."""
    command = [sys.executable, "-m", "nbconvert", "--to", "html", *options, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PATH": str(shared_folder())}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return path.with_suffix(".html").read_text()


def shows_offline(chromium, path: Path) -> None:
    """Check that a page shows the picture, without a network."""
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.goto(f"file://{path}")
    assert page.locator(".tk-static img").first.is_visible()
    assert "120 blocks of 4 tokens" in page.locator(".tk-static").first.inner_text()
    context.close()


def test_an_exported_notebook_shows_the_view_without_network(opened, lab_server, chromium):
    opened.save()
    path = lab_server.folder / opened.path
    assert VIEW not in convert(path)
    shows_offline(chromium, path.with_suffix(".html"))


def test_a_notebook_run_by_nbconvert_shows_the_view_without_network(lab_server, chromium):
    path = lab_server.folder / lab_server.write("unattended", [ENGINE, MAP])
    assert VIEW not in convert(path, "--execute")
    shows_offline(chromium, path.with_suffix(".html"))
