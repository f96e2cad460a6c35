"""ServerPanel: what ``serve()`` shows in a cell, kept up to date while the server runs."""

from __future__ import annotations

import threading
import time
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.widgets.base import Widget
from toolkit.widgets.fallback import new_figure

__all__ = ["ServerPanel"]

_NUM_LINES = 12
_MAX_LINE = 240  # characters: a page that is saved holds them
_PERIOD_S = 0.5
_REMOTE_PERIOD_S = 2.0  # another process is asked by HTTP


class ServerPanel(Widget):
    """Where a server is, how it is, its last log lines, code to copy, and a button that stops it.

    >>> ServerPanel(server)                                          # doctest: +SKIP

    A cell that returns a server shows one by itself.

    Args:
        server: What ``serve()`` returned, in this process or in another.

    Raises:
        InvalidConfig: it is no server.
    """

    _esm = Path(__file__).parent / "server_panel.js"

    def __init__(self, server: Any) -> None:
        if not all(hasattr(server, name) for name in ("url", "logs", "facts", "stop")):
            raise InvalidConfig(
                f"{type(server).__name__} is no server; give what serve() returned, or use "
                "Dashboard(source) to watch an engine"
            )
        self.server = server
        self._sent: dict[str, Any] = {}
        self._due_s = 0.0
        self._stopping: threading.Thread | None = None
        super().__init__()
        self.on_message("stop", lambda message: self.stop())

    @property
    def data(self) -> pd.DataFrame:
        """A row per fact that is shown."""
        return pd.DataFrame(list(self._state()["facts"]), columns=["fact", "value"])

    def stop(self) -> None:
        """Stop the server in the background: its answers in progress have some seconds to end."""
        if self._stopping is None and self.server.is_running:
            self._stopping = threading.Thread(target=self.server.stop, name="toolkit-stop")
            self._stopping.start()
        self._send_state()

    # ---- frames

    @property
    def is_live(self) -> bool:
        """Whether the server runs, or has stopped since the page last heard of it."""
        return bool(self.server.is_running or self._sent.get("is_running", True))

    def full_frame(self) -> None:
        """Send everything."""
        self._sent = {}
        self._send_state()

    def tick(self) -> None:
        """Send what has changed."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        is_local = hasattr(self.server.engine, "scheduler")
        self._due_s = now_s + (_PERIOD_S if is_local else _REMOTE_PERIOD_S)
        self._send_state()

    def _send_state(self) -> None:
        state = self._state()
        if state != self._sent:
            self._sent = state
            self.send_frame("panel", state)

    def _state(self) -> dict[str, Any]:
        server = self.server
        is_running = bool(server.is_running)
        return {
            "title": type(server).__name__,
            "is_running": is_running,
            "is_stopping": is_running and self._stopping is not None,
            "url": server.url,
            "docs": None if server.address.uds else f"{server.url}/docs",
            "facts": [list(fact) for fact in server.facts().items()],
            "snippets": server.snippets if is_running else {},
            "logs": [line[:_MAX_LINE] for line in list(server.logs)[-_NUM_LINES:]],
        }

    # ---- without a page

    def static_html(self) -> str:
        """Return the server's own table, and the last lines of its log."""
        lines = escape("\n".join(self._state()["logs"]))
        return (
            f"{self.server._repr_html_()}"
            f'<pre style="color:inherit;background:transparent;white-space:pre-wrap">{lines}</pre>'
        )

    def figure(self) -> Any:
        """Return the facts as a picture of text."""
        state = self._state()
        rows = [f"{name:<9} {value}" for name, value in state["facts"]]
        lines = [state["title"], *rows, "", *(line[:110] for line in state["logs"])]
        figure = new_figure(9, 0.3 + 0.18 * len(lines))
        figure.text(0.01, 0.98, "\n".join(lines), family="monospace", size=8, va="top")
        return figure

    def __repr__(self) -> str:
        state = "running" if self.server.is_running else "stopped"
        return f"ServerPanel({self.server.url}, {state})"
