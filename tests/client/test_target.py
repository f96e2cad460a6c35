"""What a server says of itself, and that no server makes us wait or listen without end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from toolkit.client import target as target_module
from toolkit.client.target import Target, facts_of
from toolkit.errors import ToolkitError

MODELS = b'{"data": [{"id": "one"}, {"id": "two"}]}'
HEAD = b"HTTP/1.1 200 OK\r\nServer: made\r\n\r\n"


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[tuple[Target, list[bytes]]]:
    """One connection, which is answered by hand; what was asked is kept."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            asked.append(connection.recv(9999))
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        yield Target(url=url, api_key="secret", headers={"X-Team": "blue"}), asked
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + MODELS,
        b"HTTP/1.1 200 OK\r\nServer: made\r\nContent-Length: %d\r\n\r\n%b" % (len(MODELS), MODELS),
        b"HTTP/1.1 200 OK\r\nServer: made\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(MODELS), MODELS),
    ],
    ids=["until the end", "counted", "chunked"],
)
def test_a_server_is_asked_for_its_models(answer: bytes) -> None:
    with server(lambda connection: connection.sendall(answer)) as (target, asked):
        facts = facts_of(target)
    assert facts == {"server": "made", "models": ["one", "two"], "model": "one"}
    assert asked[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret" in asked[0]
    assert b"X-Team: blue" in asked[0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 401 No\r\n\r\nwho are you?", "401 who are you"),
        (HEAD + b"{", "cannot be read"),
        (HEAD + b"[" * 100_000, "cannot be read"),
        (HEAD + b'{"data": []}', "names no model"),
        (b"what?\r\n\r\n", "no HTTP/1.1 response"),
        (b"", "closed the connection before the response"),
    ],
    ids=["refused", "no json", "deep", "no model", "no http", "nothing"],
)
def test_what_names_no_model_is_one_error(answer: bytes, says: str) -> None:
    with (
        server(lambda connection: connection.sendall(answer)) as (target, _),
        pytest.raises(ToolkitError, match=says),
    ):
        facts_of(target)


@pytest.mark.parametrize("head", [HEAD, b""], ids=["in the body", "in the head"])
def test_an_answer_that_trickles_has_so_much_time_in_all(head: bytes) -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    with (
        server(trickle) as (target, _),
        pytest.raises(ToolkitError, match=r"no end after 0\.2 s|timed out"),
    ):
        facts_of(target, timeout_s=0.2)


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "_MAX_ASKED_BYTES", 1 << 18)

    def flood(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        while True:
            connection.sendall(b"x" * (1 << 16))

    with server(flood) as (target, _), pytest.raises(ToolkitError, match=r"no end after \d+ bytes"):
        facts_of(target)
