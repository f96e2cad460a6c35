"""Responses and events, however the network cuts them into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.client.response import BadResponse, EventReader, ResponseReader

BODY = b"data: one\n\ndata: two\n\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
    b"B\r\ndata: one\n\n\r\nb;name=value\r\ndata: two\n\n\r\n0\r\nTrailer: x\r\n\r\n"
)
COUNTED = b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\nConnection: close\r\n\r\n" + BODY
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\n" + BODY


def cut(content: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(content) + 1) for place in places})
    return [content[a:b] for a, b in zip([0, *ends], [*ends, len(content)], strict=True)]


def read(reader: ResponseReader, parts: list[bytes]) -> bytes:
    return b"".join(map(reader.feed, parts))


places = st.lists(st.integers(0, 400), max_size=60)


@given(places)
def test_a_chunked_body_is_the_same_however_it_is_cut(places: list[int]) -> None:
    reader = ResponseReader()
    assert read(reader, cut(CHUNKED, places)) == BODY
    assert (reader.status, reader.is_done, reader.keeps_alive) == (200, True, True)
    assert reader.headers[b"content-type"] == b"text/event-stream"


@given(places)
def test_a_counted_body_is_the_same_however_it_is_cut(places: list[int]) -> None:
    reader = ResponseReader()
    assert read(reader, cut(COUNTED, places)) == BODY
    assert reader.is_done
    assert not reader.keeps_alive


@given(places)
def test_a_body_may_last_until_the_connection_ends(places: list[int]) -> None:
    reader = ResponseReader()
    assert read(reader, cut(UNTIL_CLOSE, places)) == BODY
    assert not reader.is_done
    reader.end()
    assert reader.is_done


def test_a_provisional_head_is_skipped() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED) == BODY
    assert reader.status == 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP/1.1 response"),
        (b"HTTP/1.1 OK\r\n\r\n", "no HTTP/1.1 response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "no size of a chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "no size of a chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "longer"),
        (b"x" * 70_000, "no end of line"),
    ],
)
def test_what_is_no_http_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(BadResponse, match=says):
        ResponseReader().feed(content)


@pytest.mark.parametrize("num_bytes", [0, 10, len(CHUNKED) - 1])
def test_a_response_that_breaks_off_is_refused(num_bytes: int) -> None:
    reader = ResponseReader()
    reader.feed(CHUNKED[:num_bytes])
    with pytest.raises(BadResponse, match="closed the connection"):
        reader.end()


@given(places)
def test_events_are_the_same_however_they_are_cut(places: list[int]) -> None:
    stream = b": ping\n\ndata: one\n\ndata:two\r\n\r\nevent: x\ndata: a\ndata: b\n\nid: 3\n\n"
    events = EventReader()
    found = [data for part in cut(stream, places) for data in events.feed(part)]
    assert found == [b"one", b"two", b"a\nb"]
