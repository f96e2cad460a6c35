"""Whatever is sent, the server answers in OpenAI's shape, soon, and goes on as if nothing was."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import NamedTuple

import httpx
import pytest

from tests.system.aftermath import require_at_rest
from tests.system.hostile import BAD_BYTES, BAD_CONNECTIONS, GOOD, bad_bodies
from toolkit.llm import LLM
from toolkit.server import Server, serve

pytestmark = pytest.mark.slow

# How long one case may take; far more than any takes, on two busy cores.
PATIENCE_S = 60.0
BODIES = {path: dict(chain(bad_bodies(path), BAD_BYTES.items())) for path in GOOD}
CASES = [(path, name) for path in GOOD for name in BODIES[path]]
# Bodies for an endpoint that ignores the field, or has no limit of its own to the text.
RIGHT_SOMEWHERE = {
    "10 MB of text",
    "a fraction of many digits",
    "a number too large for a float",
    "an exponent of many digits",
}


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(max_num_seqs=8, num_kv_blocks=256) as llm:
        yield llm


@pytest.fixture(scope="module")
def server(llm: LLM) -> Iterator[Server]:
    names = "toolkit-demo"
    with serve(llm, port=0, served_model_name=names, body_timeout_s=1.0) as server:
        yield server


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
        yield http


def require_proper(answer: httpx.Response) -> None:
    """Fail unless it is an answer, or a client's error in OpenAI's shape."""
    assert 200 <= answer.status_code < 500, answer.text[:500]
    assert answer.headers["x-request-id"]
    if answer.status_code == 200:
        return
    assert answer.headers["content-type"] == "application/json"
    require_openais_error(answer.text)


def require_openais_error(text: str) -> None:
    """Fail unless it is the error object, with a message that can be read."""
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) < 1500
    assert isinstance(error["type"], str)


def test_there_are_many_cases() -> None:
    assert len(CASES) + len(BAD_CONNECTIONS) >= 500


@pytest.mark.parametrize(("path", "name"), CASES)
def test_a_hostile_body(http: httpx.Client, path: str, name: str) -> None:
    headers = {"content-type": "application/json"}
    answer = http.post(path, content=BODIES[path][name], headers=headers)
    require_proper(answer)
    if name in BAD_BYTES and name not in RIGHT_SOMEWHERE:
        assert 400 <= answer.status_code < 500


class Reply(NamedTuple):
    """One answer on a connection."""

    status: int
    body: str


class Outcome(NamedTuple):
    """What came back on a connection, and whether anything ended it in time."""

    replies: list[Reply]
    is_over: bool


@pytest.fixture(scope="module")
def outcomes(server: Server) -> dict[str, Outcome]:
    """Of all bad connections, which are open at once: some of them run into time limits."""
    found: dict[str, Outcome] = {}

    def send(name: str) -> None:
        found[name] = outcome_of(server.port, BAD_CONNECTIONS[name])

    threads = [threading.Thread(target=send, args=(name,)) for name in BAD_CONNECTIONS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def outcome_of(port: int, sent: bytes) -> Outcome:
    """Send on a new connection, and wait for an answer or the end of the connection."""
    received = b""
    deadline = time.monotonic() + PATIENCE_S
    with closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)) as connection:
        try:
            connection.sendall(sent)
            while not replies_in(received):
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                part = connection.recv(65536)
                received += part
                if not part:
                    break
        except TimeoutError:
            return Outcome(replies_in(received), is_over=False)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was closed while there was more to say
    return Outcome(replies_in(received), is_over=True)


def replies_in(received: bytes) -> list[Reply]:
    """The whole answers among what came back."""
    replies = []
    while b"\r\n\r\n" in received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2] for line in lines}
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            break
        status = int(status_line.split(" ")[1])
        if status >= 200:
            replies.append(Reply(status, rest[:size].decode()))
        received = rest[size:]
    return replies


@pytest.mark.parametrize("name", BAD_CONNECTIONS)
def test_a_hostile_connection(outcomes: dict[str, Outcome], name: str) -> None:
    replies, is_over = outcomes[name]
    assert is_over, "nothing came, and the connection stayed open"
    for reply in replies:
        assert 200 <= reply.status < 500, reply
        if reply.status >= 400:
            require_openais_error(reply.body)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("path", GOOD)
def test_clients_that_reset_their_connections(server: Server, path: str, share: float) -> None:
    body = json.dumps(GOOD[path] | {"stream": True}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    sent = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    for _ in range(10):
        with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
            # Closing sends a reset in place of an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(sent[: int(len(sent) * share)])


def test_after_all_of_it_the_engine_is_clean(
    llm: LLM, http: httpx.Client, outcomes: dict[str, Outcome]
) -> None:
    require_at_rest(llm)
    for path, body in GOOD.items():
        answer = http.post(path, json=body)
        assert answer.status_code == 200, answer.text
