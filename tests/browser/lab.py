"""A real JupyterLab in headless Chromium: write a notebook, run it, look at its widgets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT_S = 60
_SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    # Cells out of sight are drawn too: a test scrolls for a screenshot only.
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}
# What JupyterLab itself says when all is well.
_NOISE = ("favicon", "ResizeObserver loop", "/lsp/status")  # the last asks for an extension


class Lab:
    """A JupyterLab server over a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = folder / ".settings"
        for name, values in _SETTINGS.items():
            (settings / name).parent.mkdir(parents=True, exist_ok=True)
            (settings / name).write_text(json.dumps(values))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # A virtual environment may borrow the packages of another: what they share lies with them.
        share = shared_folder()
        self._log = (folder / "lab.log").open("w")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}"),
                *("--IdentityProvider.token=", "--ServerApp.port_retries=0"),
                *("--LabApp.expose_app_in_browser=True", f"--app-dir={share / 'lab'}"),
                f"--ServerApp.root_dir={folder}",
            ],
            env={
                **os.environ,
                "JUPYTERLAB_SETTINGS_DIR": str(settings),
                "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces"),
                "JUPYTER_PATH": str(share),
                "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
                "JUPYTER_PLATFORM_DIRS": "1",
                "PYTHONPATH": str(ROOT),
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        self.url = f"http://127.0.0.1:{self.port}"
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/api/status", timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)
            if self._process.poll() is not None:
                break
        self.close()
        raise RuntimeError((self.folder / "lab.log").read_text()[-3000:])

    def write(self, name: str, cells: Sequence[str]) -> str:
        """Write a notebook with these code cells and return its path in the folder."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells]
        )
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.folder / f"{name}.ipynb")
        return f"{name}.ipynb"

    def close(self) -> None:
        """Stop the server and every kernel that it started."""
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Notebook:
    """One notebook, open in one tab; ``page`` is Playwright's."""

    def __init__(self, page: Any, url: str, path: str) -> None:
        self.page, self.path = page, path
        self.errors: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(url)
        self.wait_open()

    def _on_console(self, message: Any) -> None:
        where = message.location.get("url", "")
        if message.type == "error" and not any(x in message.text + where for x in _NOISE):
            self.errors.append(f"{message.text} ({where})")

    def wait_open(self) -> None:
        """Wait until the notebook and its kernel are there."""
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
            "?.connectionStatus === 'connected'",
            timeout=60_000,
        )

    def wait_idle(self) -> None:
        """Wait until no cell runs."""
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'",
            timeout=60_000,
        )

    def run_all(self, *, wait: bool = True) -> None:
        """Run every cell, and wait for the last to end."""
        script = "() => jupyterapp.commands.execute('notebook:run-all-cells').then(() => null)"
        if wait:
            self.page.evaluate(script)
        else:
            self.page.evaluate(f"() => {{ ({script})(); }}")

    def run(self, source: str, *, wait: bool = True) -> None:
        """Run one more cell at the end."""
        script = f"""async () => {{
            const {{ content }} = jupyterapp.shell.currentWidget;
            content.activeCellIndex = content.widgets.length - 1;
            await jupyterapp.commands.execute('notebook:insert-cell-below');
            content.activeCell.model.sharedModel.setSource({json.dumps(source)});
            const done = jupyterapp.commands.execute('notebook:run-cell');
            if ({json.dumps(wait)}) await done;
        }}"""
        self.page.evaluate(script)

    def save(self) -> None:
        """Save the notebook."""
        self.page.evaluate("() => jupyterapp.commands.execute('docmanager:save').then(() => null)")

    def use_theme(self, name: str) -> None:
        """Change to "JupyterLab Light" or "JupyterLab Dark"."""
        self.page.evaluate(
            "(theme) => jupyterapp.commands.execute('apputils:change-theme', {theme})"
            ".then(() => null)",
            name,
        )
        self.page.wait_for_function(
            "(theme) => document.body.dataset.jpThemeName === theme", arg=name
        )
        self.page.wait_for_timeout(700)  # its style sheet is loaded afterwards

    def widget(self, index: int = 0) -> Any:
        """The locator of a widget, counted from the top."""
        return self.page.locator(".jp-OutputArea .tk").nth(index)

    def output(self) -> str:
        """All text that the cells have put out."""
        return str(self.page.locator(".jp-NotebookPanel .jp-OutputArea-output").all_inner_texts())


def shared_folder() -> Path:
    """Where JupyterLab keeps its files: a virtual environment may borrow those of another."""
    import anywidget

    for parent in Path(anywidget.__file__).parents:
        if (parent / "share/jupyter/lab").is_dir():
            return parent / "share/jupyter"
    raise RuntimeError("JupyterLab's files were not found beside its packages")
