"""toolkit.live() and toolkit.close_all(): what lives here, what it holds, and its end."""

from __future__ import annotations

import gc
import html
import os
import weakref

import pandas as pd
import pytest

import toolkit
from toolkit.llm import LLM
from toolkit.registry import Holding, Live, close_all, live, register, resident_bytes
from toolkit.server import serve


class Thing:
    """Something that can be listed; its close() may raise."""

    def __init__(self, name: str, closed: list[str], kind: str = "LLM") -> None:
        self.name = name
        self.kind = kind
        self.closed = closed
        register(self)

    def holding(self) -> Holding | None:
        if self.name in self.closed:
            return None
        return Holding(kind=self.kind, name=self.name, state="idle", where="here", kv_bytes=2**30)

    def close(self) -> None:
        self.closed.append(self.name)
        if self.name == "broken":
            raise RuntimeError("cannot be closed")


def names(kind: str | None = None) -> list[str]:
    return [row.name for row in live() if kind in (None, row.kind)]


def test_an_llm_and_its_servers_are_listed_with_their_memory_until_they_are_closed() -> None:
    llm = LLM(num_kv_blocks=64, max_model_len=64)
    with serve(llm, port=0) as server, serve(llm, port=0, served_model_name="other") as other:
        places = {row.where: row for row in live() if row.kind == "server"}
        assert places[server.url].name == llm.model_name
        assert places[other.url].name == "other"
        (row,) = [row for row in live() if row.kind == "LLM" and row.name == llm.model_name]
        listed = live()
        assert listed.thing([row.where for row in listed].index(server.url)) is server
        assert row.kv_bytes == llm.memory_plan().kv_bytes
        assert row.weight_bytes == llm.memory_plan().weight_bytes
    assert "other" not in names()
    llm.close()
    assert llm.model_name not in names("LLM")


def test_what_is_dropped_is_collected_though_it_was_listed() -> None:
    thing = Thing("dropped", [])
    gone = weakref.ref(thing)
    assert "dropped" in names()
    listed = live()
    index = [row.name for row in listed].index("dropped")
    assert listed.thing(index) is thing
    del thing
    gc.collect()
    assert gone() is None
    with pytest.raises(LookupError, match="no more"):
        listed.thing(index)
    assert "dropped" not in names()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests keep open stays open."""
    monkeypatch.setattr("toolkit.registry._things", weakref.WeakSet())


@pytest.mark.usefixtures("alone")
def test_close_all_closes_servers_before_llms_and_each_in_spite_of_the_others() -> None:
    closed: list[str] = []
    things = [
        Thing("model", closed),
        Thing("broken", closed, kind="server"),
        Thing("front", closed, kind="server"),
    ]
    with pytest.raises(RuntimeError, match="cannot be closed"):
        close_all()
    assert sorted(closed[:2]) == ["broken", "front"]
    assert closed[2] == "model"
    assert len(live()) == 0
    assert len(close_all()) == 0
    assert len(things) == 3


@pytest.mark.usefixtures("alone")
def test_closing_all_stops_a_server_and_the_llm_that_it_made() -> None:
    server = serve(port=0, num_kv_blocks=64, max_model_len=64)
    closed = toolkit.close_all()
    assert {"LLM", "server"} <= {row.kind for row in closed}
    assert not server.is_running
    assert server.engine.is_closed
    assert server.url not in [row.where for row in toolkit.live()]


def test_the_list_is_a_table_in_text_in_html_and_in_pandas() -> None:
    rows = (
        Holding(kind="LLM", name="<small>", state="idle", where="cpu", weight_bytes=3 * 2**20),
        Holding(kind="server", name="b", state="idle", where="http://x", resident_bytes=2**31),
    )
    table = Live(rows, resident_bytes=2**30)
    assert "3.0 MiB" in repr(table)
    assert "2.00 GiB" in repr(table)
    assert "1.00 GiB of main memory" in repr(table)
    assert html.escape("<small>") in table._repr_html_()
    assert "<small>" not in table._repr_html_()
    assert list(pd.DataFrame(table)["kind"]) == ["LLM", "server"]
    assert "nothing lives" in repr(Live((), resident_bytes=None))


def test_memory_of_a_process_is_what_the_system_says() -> None:
    own = resident_bytes()
    if own is None:
        pytest.skip("this system does not tell")
    assert own > 10 * 2**20
    assert resident_bytes(os.getpid()) == pytest.approx(own, rel=0.1)
    assert resident_bytes(2**30) is None
