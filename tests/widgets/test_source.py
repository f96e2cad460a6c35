from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.builders import make_engine
from toolkit.errors import InvalidConfig
from toolkit.record import Record
from toolkit.widgets import Timeline, open_source


def test_an_engine_gives_its_record_and_is_live_until_it_is_closed():
    engine = make_engine(recorder=Record())
    source = open_source(engine)
    assert source.record is engine.record
    assert source.engine is engine
    assert source.is_live
    engine.close()
    assert not source.is_live


def test_an_llm_and_a_server_lead_to_their_engine():
    engine = make_engine(recorder=Record())
    llm = SimpleNamespace(engine=engine, generate=print)
    server = SimpleNamespace(engine=engine, url="http://127.0.0.1:1")
    assert open_source(llm).llm is llm
    assert open_source(server).server is server
    assert open_source(llm).record is open_source(server).record is engine.record


def test_a_run_gives_its_record_and_is_over():
    record = Record()
    source = open_source(SimpleNamespace(record=record))
    assert source.record is record
    assert not source.is_live


def test_a_source_that_is_open_stays_as_it_is():
    source = open_source(make_engine(recorder=Record()))
    assert open_source(source) is source


def test_what_cannot_be_looked_into_says_what_can():
    with pytest.raises(InvalidConfig, match="int cannot be looked into; give an LLM"):
        open_source(7)
    with pytest.raises(InvalidConfig, match="records nothing"):
        open_source(make_engine())


def test_a_record_in_another_process_says_what_to_do():
    remote = SimpleNamespace(record=SimpleNamespace(tail=print), step=print)
    with pytest.raises(InvalidConfig, match="serve without process=True"):
        Timeline(remote)
