"""The panel says where a server is and how it is, and stops it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.errors import InvalidConfig
from toolkit.server.address import Address
from toolkit.server.snippets import snippets
from toolkit.widgets import ServerPanel


class PretendedServer:
    """A server that runs until it is stopped, and has much to say in its log."""

    def __init__(self) -> None:
        self.address = Address(host="127.0.0.1", port=8000)
        self.url = self.address.url
        self.engine = SimpleNamespace(scheduler=None)
        self.is_running = True
        self.logs = [f"12:00:{n:02d} GET /<v1> 200 {'x' * 400}" for n in range(40)]
        self.stopped_in: str | None = None
        self.may_stop = threading.Event()

    @property
    def snippets(self) -> dict[str, str]:
        return snippets(self.address, "tiny")

    def facts(self) -> dict[str, str]:
        return {"state": "running" if self.is_running else "stopped", "URL": self.url}

    def stop(self) -> None:
        self.stopped_in = threading.current_thread().name
        assert self.may_stop.wait(5)
        self.is_running = False

    def _repr_html_(self) -> str:
        return "<table>the server's own</table>"


@pytest.fixture
def server() -> PretendedServer:
    return PretendedServer()


def test_a_page_gets_facts_code_and_the_last_lines(server: Any, open_page: Any) -> None:
    meta = open_page(ServerPanel(server)).newest("panel").meta
    assert meta["facts"] == [["state", "running"], ["URL", server.url]]
    assert set(meta["snippets"]) == {"curl", "openai", "LangChain"}
    assert len(meta["logs"]) == 12
    assert max(map(len, meta["logs"])) <= 240
    assert meta["docs"] == f"{server.url}/docs"


def test_new_lines_of_the_log_arrive_and_nothing_else_is_sent(server: Any, open_page: Any) -> None:
    page = open_page(ServerPanel(server))
    page.read()
    page.widget._due_s = 0.0
    page.widget.tick()
    assert [frame.kind for frame in page.read()] == []  # nothing has changed
    server.logs.append("12:01:00 a new line")
    page.until("panel", lambda frame: frame.meta["logs"][-1] == "12:01:00 a new line")


def test_the_stop_button_stops_in_the_background_and_the_panel_says_so(
    server: Any, open_page: Any
) -> None:
    panel = ServerPanel(server)
    page = open_page(panel)
    page.say("stop")
    page.until("panel", lambda frame: frame.meta["is_stopping"])
    server.may_stop.set()
    meta = page.until("panel", lambda frame: not frame.meta["is_running"]).meta
    assert server.stopped_in == "toolkit-stop"
    assert meta["facts"][0] == ["state", "stopped"]
    assert meta["snippets"] == {}
    assert not panel.is_live


def test_without_a_page_it_is_the_servers_own_table_and_its_log(server: Any) -> None:
    panel = ServerPanel(server)
    html = panel.to_html()
    assert "the server's own" in html
    assert "GET /&lt;v1&gt; 200" in html
    assert panel.to_png().startswith(b"\x89PNG")
    assert list(panel.data.columns) == ["fact", "value"]
    assert repr(panel) == "ServerPanel(http://127.0.0.1:8000, running)"


def test_what_is_no_server_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="is no server"):
        ServerPanel(object())
