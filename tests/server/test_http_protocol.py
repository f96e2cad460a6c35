"""What a connection does with bytes that are no plain HTTP/1.1 request."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest

from toolkit.llm import LLM
from toolkit.server import Server, serve

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


def test_after_a_wish_for_a_websocket_a_server_stops(llm: LLM) -> None:
    with serve(llm, port=0) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        connection.sendall(HEALTH % TO_WEBSOCKET)
        assert answer(connection) == (200, {"status": "ok"})
        connection.close()
    assert not any("Error" in line for line in server.logs)
