"""The last lines of a server's log, kept in memory instead of on the notebook's output."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

__all__ = ["LogTail"]

# Loggers of uvicorn: start, stop, and the tracebacks of what went wrong in an answer.
_UVICORN = "uvicorn.error"
_OWN = "toolkit.server"


class LogTail(logging.Handler):
    """Keeps the newest lines of one server; several servers may run in one process.

    Args:
        max_lines: Older lines are forgotten.
    """

    def __init__(self, max_lines: int = 1000) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=max_lines)
        self._thread_id: int | None = None
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))

    @property
    def lines(self) -> list[str]:
        """The lines, oldest first."""
        return list(self._lines)

    def write(self, line: str) -> None:
        """Add a line, with the time of day."""
        self._lines.append(f"{time.strftime('%H:%M:%S')} {line}")

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of the server's thread, and leave those of other servers alone."""
        if record.thread == self._thread_id:
            self._lines.append(self.format(record))

    def open(self) -> None:
        """Listen to what this thread logs."""
        self._thread_id = threading.get_ident()
        # uvicorn's lines belong in the tail; a cell that serves prints nothing.
        logging.getLogger(_UVICORN).propagate = False
        for name in (_UVICORN, _OWN):
            logging.getLogger(name).addHandler(self)

    def close(self) -> None:
        """Listen no more; the lines stay."""
        for name in (_UVICORN, _OWN):
            logging.getLogger(name).removeHandler(self)
        super().close()
