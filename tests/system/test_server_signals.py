"""``toolkit serve`` and signals: every stream ends, the exit code is 0, the port is free."""

from __future__ import annotations

import json
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.tiny_model import write_tiny_model

NUM_STREAMS = 50
GRACE_S = 2.0
DONE = "data: [DONE]"


class Served:
    """A ``toolkit serve`` of its own, and what its clients got."""

    def __init__(self, model: Path, *options: str) -> None:
        command = [sys.executable, "-m", "toolkit", "serve", str(model), "--port", "0"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([*command, *options], **pipes, text=True)
        text = ""
        while "Ctrl-C" not in text:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            text += line
        self.url = re.findall(r"curl (http\S+)/v1", text)[0]
        self.port = int(self.url.rpartition(":")[2])
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.started = threading.Semaphore(0)

    def stream(self, max_tokens: int) -> None:
        """Read a stream to its end, and keep its last event."""
        body = {"prompt": [1, 2, 3], "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
        last = "nothing"
        try:
            with httpx.stream("POST", f"{self.url}/v1/completions", json=body, timeout=60) as got:
                for line in got.iter_lines():
                    if line and last == "nothing":
                        self.started.release()
                    last = line or last
        except httpx.HTTPError as error:
            last = f"cut: {error!r}"
        self.ends.put(last)

    def streams(self, count: int, max_tokens: int) -> list[threading.Thread]:
        """Start as many, and return when each has begun to arrive."""
        threads = [threading.Thread(target=self.stream, args=(max_tokens,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert self.started.acquire(timeout=60)
        return threads

    def last_events(self, threads: list[threading.Thread]) -> list[str]:
        for thread in threads:
            thread.join(60)
        return [self.ends.get(timeout=1) for _ in threads]

    def end(self) -> int:
        """Return the exit code."""
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def served(model: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    served = Served(model, "--grace-s", str(request.param), "--max-num-seqs", "64")
    yield served
    served.process.kill()
    served.end()


def is_error(event: str) -> bool:
    return event.startswith("data: ") and "error" in json.loads(event.removeprefix("data: "))


def assert_port_is_free(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("served", [0.0, GRACE_S], indirect=True)
def test_terminated_during_50_streams_each_ends_within_the_grace(served: Served) -> None:
    threads = served.streams(NUM_STREAMS, max_tokens=480)
    start_s = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    events = served.last_events(threads)
    assert served.end() == 0
    assert time.monotonic() - start_s < GRACE_S + 10  # the interpreter's own end is in it
    assert [event for event in events if event != DONE and not is_error(event)] == []
    assert_port_is_free(served.port)


@pytest.mark.slow
@pytest.mark.parametrize("served", [60.0], indirect=True)
def test_within_the_grace_streams_end_as_if_nothing_were(served: Served) -> None:
    threads = served.streams(8, max_tokens=200)
    served.process.send_signal(signal.SIGINT)
    assert served.last_events(threads) == [DONE] * 8
    assert served.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("served", [600.0], indirect=True)
def test_a_second_signal_ends_what_the_first_lets_run(served: Served) -> None:
    threads = served.streams(NUM_STREAMS, max_tokens=480)
    served.process.send_signal(signal.SIGTERM)
    served.process.send_signal(signal.SIGINT)
    events = served.last_events(threads)
    assert [event for event in events if event != DONE and not is_error(event)] == []
    # At 600 seconds of grace, only the second signal ends a stream with an error.
    assert any(event != DONE and is_error(event) for event in events)
    assert served.end() == 0
    assert_port_is_free(served.port)
