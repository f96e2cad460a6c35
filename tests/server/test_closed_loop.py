"""The small load that dashboards offer: it asks until told to stop, and says what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from toolkit.llm import LLM
from toolkit.server import Server, serve
from toolkit.server.closed_loop import ClosedLoop


def wait_until(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


@pytest.fixture
def running(llm: LLM) -> Iterator[Server]:
    with serve(llm, port=0, grace_s=0.0) as server:
        yield server


def loaded(load: ClosedLoop, stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=load, args=(stop,), daemon=True)
    thread.start()
    return thread


def test_clients_ask_again_until_told_to_stop(running: Server) -> None:
    stop = threading.Event()
    before = len(running.engine.record.requests)
    thread = loaded(ClosedLoop(running, num_clients=3, max_tokens=8), stop)
    wait_until(lambda: len(running.engine.record.requests) >= before + 9)
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    wait_until(lambda: running.engine.scheduler.num_running == 0)
    asked = running.engine.record.requests.iloc[before:]
    assert set(asked["tags.load"]) == {"closed-loop"}
    assert asked.max_tokens.between(2, 8).all()


def test_a_load_ends_with_its_server(running: Server) -> None:
    thread = loaded(ClosedLoop(running, num_clients=2, max_tokens=8), threading.Event())
    before = len(running.engine.record.requests)
    wait_until(lambda: len(running.engine.record.requests) > before + 2)
    running.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_what_is_refused_for_good_is_raised(model_folder: Path) -> None:
    with (
        serve(str(model_folder), port=0, max_model_len=16) as server,
        pytest.raises(openai.BadRequestError),
    ):
        ClosedLoop(server, num_clients=1)(threading.Event())
