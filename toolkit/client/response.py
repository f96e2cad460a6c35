"""Read an HTTP/1.1 response, and the server-sent events in it, from bytes as they come.

Only what a client needs that asks for a stream: a status, headers, a body that is chunked, counted
or ended by the connection's end. A generic client spends more on each event than the server does.
"""

from __future__ import annotations

from toolkit.errors import ToolkitError

__all__ = ["BadResponse", "EventReader", "ResponseReader"]

# A head or a chunk's size that is longer is no HTTP.
_MAX_HEAD = 64 << 10
# An event that is longer is no token.
_MAX_EVENT = 16 << 20
_HEAD, _SIZE, _CHUNK, _CHUNK_END, _TRAILERS, _COUNTED, _UNTIL_CLOSE, _DONE = range(8)


class BadResponse(ToolkitError):
    """What the server sent is no HTTP/1.1 response."""


class ResponseReader:
    """Takes bytes apart into a status, headers and a body.

    >>> reader = ResponseReader()
    >>> reader.feed(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhel"), reader.status
    (b'hel', 200)
    >>> reader.feed(b"lo"), reader.is_done, reader.keeps_alive
    (b'lo', True, True)
    """

    def __init__(self) -> None:
        self.status = 0  # until the head is there
        self.headers: dict[bytes, bytes] = {}  # names in lower case
        self.keeps_alive = False
        self._state = _HEAD
        self._rest = b""
        self._num_missing = 0  # bytes of the chunk or of the counted body

    @property
    def is_done(self) -> bool:
        """Whether the response is complete."""
        return self._state == _DONE

    def feed(self, received: bytes) -> bytes:
        """Take in what came; return what of the body is in it.

        Raises:
            BadResponse: it is no HTTP/1.1.
        """
        rest = self._rest + received if self._rest else received
        body: list[bytes] = []
        while rest and self._state != _DONE:
            num_before = len(rest)
            rest = self._advance(rest, body)
            if len(rest) == num_before:  # a line that goes on in what is still to come
                if num_before > _MAX_HEAD:
                    raise BadResponse(f"no end of line in {num_before} bytes: {rest[:60]!r}")
                break
        self._rest = b"" if self._state == _DONE else rest
        return body[0] if len(body) == 1 else b"".join(body)

    def end(self) -> None:
        """Note that the connection ended.

        Raises:
            BadResponse: in the middle of a response.
        """
        if self._state == _UNTIL_CLOSE:
            self._state = _DONE
        if self._state != _DONE:
            where = "before the response" if self._state == _HEAD else "in the response"
            raise BadResponse(f"the server closed the connection {where}")

    def _advance(self, rest: bytes, body: list[bytes]) -> bytes:
        """Take one piece off what came; what is returned was not understood yet."""
        if self._state == _CHUNK or self._state == _COUNTED:
            part = rest[: self._num_missing]
            body.append(part)
            self._num_missing -= len(part)
            if not self._num_missing:
                self._state = _CHUNK_END if self._state == _CHUNK else _DONE
            return rest[len(part) :]
        if self._state == _UNTIL_CLOSE:
            body.append(rest)
            return b""
        if self._state == _HEAD:
            end = rest.find(b"\r\n\r\n")
            if end < 0:
                return rest
            self._read_head(rest[:end])
            return rest[end + 4 :]
        end = rest.find(b"\r\n")
        if end < 0:
            return rest
        self._read_line(rest[:end])
        return rest[end + 2 :]

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        parts = first.split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise BadResponse(f"no HTTP/1.1 response: {first[:60]!r}")
        status = int(parts[1])
        if 100 <= status < 200:  # "go on": the real head follows
            return
        self.status = status
        for line in lines:
            name, _, value = line.partition(b":")
            self.headers[name.strip().lower()] = value.strip()
        connection = self.headers.get(b"connection", b"").lower()
        self.keeps_alive = parts[0] == b"HTTP/1.1" and connection != b"close"
        length = self.headers.get(b"content-length")
        if self.headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            self._state = _SIZE
        elif status in (204, 304):
            self._state = _DONE
        elif length is None:
            self._state, self.keeps_alive = _UNTIL_CLOSE, False
        elif not length.isdigit():
            raise BadResponse(f"content-length is {length[:60]!r}")
        else:
            self._num_missing = int(length)
            self._state = _COUNTED if self._num_missing else _DONE

    def _read_line(self, line: bytes) -> None:
        """Read a line between chunks: a size, the end of a chunk's line, a trailer."""
        if self._state == _CHUNK_END:
            if line:
                raise BadResponse(f"a chunk is longer than its size says: {line[:60]!r}")
            self._state = _SIZE
        elif self._state == _TRAILERS:
            self._state = _TRAILERS if line else _DONE
        else:
            try:
                self._num_missing = int(line.partition(b";")[0], 16)
            except ValueError as error:
                raise BadResponse(f"no size of a chunk: {line[:60]!r}") from error
            if self._num_missing < 0:
                raise BadResponse(f"no size of a chunk: {line[:60]!r}")
            self._state = _CHUNK if self._num_missing else _TRAILERS


class EventReader:
    """Takes a stream of server-sent events apart into their data.

    >>> events = EventReader()
    >>> events.feed(b": a comment\\n\\ndata: 1\\n\\nda"), events.feed(b"ta: 2\\r\\n\\r\\n")
    ([b'1'], [b'2'])
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []  # lines of the event in progress

    def feed(self, received: bytes) -> list[bytes]:
        """Take in what came; return the data of each event that is complete.

        Raises:
            BadResponse: a line has no end.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > _MAX_EVENT:
            raise BadResponse(f"no end of line in {len(self._rest)} bytes of a stream")
        found = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                found.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        return found
