"""Send Python objects between the processes of one machine, over a socket that may time out."""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

__all__ = ["Channel"]

_LENGTH = struct.Struct("<Q")


class Channel:
    """One end of a socket. What arrives is unpickled: only our own processes have the other."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """Return what a selector waits for."""
        return self._socket.fileno()

    def send(self, message: object) -> None:
        """Send one object; raises OSError if the other end is gone, or does not read in time."""
        body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        self._socket.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Any:
        """Return the next object; raises EOFError if the other end is gone."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def _read(self, count: int) -> bytearray:
        content = bytearray(count)
        view = memoryview(content)
        while view:
            try:
                num_read = self._socket.recv_into(view)
            except ConnectionError:
                num_read = 0
            if not num_read:
                raise EOFError("the other process has ended")
            view = view[num_read:]
        return content
