"""What a connection does with bytes that are no plain HTTP/1.1 request."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest

from toolkit.llm import LLM
from toolkit.server import Server, http_protocol, serve

BODY = json.dumps({"model": "tiny", "prompt": "Hello", "max_tokens": 2}).encode()
POST = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
SIZED = b"content-length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
# What Java's client sends with every call to an http:// address.
TO_HTTP_2 = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
TO_WEBSOCKET = (
    b"connection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: YWFhYWFhYWFhYWFhYWFhYQ==\r\n"
)
HEALTH = b"GET /health HTTP/1.1\r\nhost: a\r\n%b\r\n"


@pytest.fixture
def connection(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        yield connection


def answer(connection: socket.socket) -> tuple[int, Any]:
    """The status and the body of the next answer."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


@pytest.mark.parametrize("wish", [TO_HTTP_2, TO_WEBSOCKET])
@pytest.mark.parametrize("rest", [SIZED, CHUNKED])
@pytest.mark.parametrize("cut", [None, 0, 40])
def test_a_call_that_wishes_to_upgrade_is_answered_over_http_1(
    connection: socket.socket, wish: bytes, rest: bytes, cut: int | None
) -> None:
    sent = POST + wish + rest
    if cut is None:
        connection.sendall(sent)
    else:  # in two parts; the second one is on its way when the first one has arrived
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(sent[: cut - len(rest)])
        connection.sendall(sent[cut - len(rest) :])
    status, body = answer(connection)
    assert status == 200
    assert body["usage"]["completion_tokens"] == 2
    connection.sendall(HEALTH % b"")  # the connection goes on
    assert answer(connection) == (200, {"status": "ok"})


def test_many_wishes_at_once_are_answered_one_by_one(connection: socket.socket) -> None:
    connection.sendall(HEALTH % TO_HTTP_2 * 1000 + POST + TO_HTTP_2 + SIZED)
    text = b""
    while b"completion_tokens" not in text:
        text += connection.recv(65536)
    assert text.count(b"HTTP/1.1 200 OK") == 1001


def test_what_is_no_http_gets_openais_error_and_the_end(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
    status, body = answer(connection)
    assert status == 400
    assert "no HTTP/1.1 request" in body["error"]["message"]
    assert connection.recv(1) == b""


HEADS = {
    "many headers": b"".join(b"x-%d: %b\r\n" % (i, b"a" * 90) for i in range(700)) + b"\r\n",
    "a long header": b"x: " + b"a" * 70_000 + b"\r\n\r\n",
    "a header without end": b"x: " + b"a" * 400_000,
    "a name without end": b"a" * 400_000,
    "trailers without end": b"transfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 400_000,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_headers_that_are_too_long_are_refused_before_a_key_is_asked_for(
    connection: socket.socket, head: bytes
) -> None:
    connection.sendall(POST + head)
    status, body = answer(connection)
    assert status == 431
    assert body["error"]["code"] == "request_headers_too_large"


def test_an_address_that_is_too_long_is_refused(connection: socket.socket) -> None:
    connection.sendall(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    assert answer(connection)[0] == 431


def test_each_call_of_a_connection_has_room_for_its_own_headers(connection: socket.socket) -> None:
    long = b"x: " + b"a" * 60_000 + b"\r\n"
    for _ in range(3):
        connection.sendall(HEALTH % long)
        assert answer(connection) == (200, {"status": "ok"})


def drip_for_20_s(connection: socket.socket, drip: bytes) -> None:
    paced = threading.Event()
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < 20:
        connection.sendall(drip)
        paced.wait(0.05)


@pytest.mark.parametrize("before", [b"", HEALTH % b""])
@pytest.mark.parametrize("drip", [b"x", b"\r\n"])
def test_a_connection_without_the_end_of_headers_is_closed_whatever_drips(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, before: bytes, drip: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "_HEADER_TIMEOUT_S", 0.3)
    with (
        serve(llm, port=0) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        connection.sendall(before)
        if before:
            assert answer(connection)[0] == 200
        connection.sendall(b"GET /health HTTP/1.1\r\n" if drip == b"x" else b"\r\n")
        with pytest.raises(ConnectionError):
            drip_for_20_s(connection, drip)


def test_after_a_wish_for_a_websocket_a_server_stops(llm: LLM) -> None:
    with serve(llm, port=0) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        connection.sendall(HEALTH % TO_WEBSOCKET)
        assert answer(connection) == (200, {"status": "ok"})
        connection.close()
    assert not any("Error" in line for line in server.logs)
