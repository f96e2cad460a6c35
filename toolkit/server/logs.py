"""The last lines of a server's log, kept in memory instead of on the notebook's output."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from html import escape

__all__ = ["LogLines", "LogTail"]

# Loggers of uvicorn: start, stop, and the tracebacks of what went wrong in an answer.
_UVICORN = "uvicorn.error"
_OWN = "toolkit.server"


class LogLines(list[str]):
    """Lines of a log, oldest first; a list that shows them as lines."""

    def __repr__(self) -> str:
        return "\n".join(self)

    def _repr_html_(self) -> str:
        return (
            '<pre style="max-height:24em;overflow:auto;white-space:pre-wrap;color:inherit;'
            f'background:transparent;margin:0">{escape(repr(self))}</pre>'
        )


def _printable(line: str) -> str:
    """Return a line in which what is not to be seen is escaped, but for its breaks.

    Lines quote what clients send, and a terminal obeys what begins with an escape character.
    """
    if line.isprintable():
        return line
    return "".join(
        each
        if each.isprintable() or each in "\n\t"
        else each.encode("unicode_escape").decode("ascii")
        for each in line
    )


class LogTail(logging.Handler):
    """Keeps the newest lines of one server; several servers may run in one process.

    Args:
        max_lines: Older lines are forgotten.
    """

    def __init__(self, max_lines: int = 1000) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=max_lines)
        self._thread_id: int | None = None
        self._echo_calls: Callable[[str], object] | None = None
        self._echo_notes: Callable[[str], object] | None = None
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))

    @property
    def lines(self) -> LogLines:
        """The lines, oldest first."""
        return LogLines(self._lines)

    def echo(self, write: Callable[[str], object], *, calls: bool) -> None:
        """Give new lines to ``write`` too: warnings and failures, and calls if they are wanted."""
        self._echo_notes = write
        self._echo_calls = write if calls else None

    def write(self, line: str) -> None:
        """Add what somebody should know, with the time of day."""
        self._keep(f"{time.strftime('%H:%M:%S')} {line}", self._echo_notes)

    def write_call(self, line: str) -> None:
        """Add a call that was answered, with the time of day."""
        self._keep(f"{time.strftime('%H:%M:%S')} {line}", self._echo_calls)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of the server's thread, and leave those of other servers alone."""
        if record.thread == self._thread_id:
            is_note = record.levelno >= logging.WARNING
            self._keep(self.format(record), self._echo_notes if is_note else None)

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
        uvicorn = logging.getLogger(_UVICORN)
        if not any(isinstance(handler, LogTail) for handler in uvicorn.handlers):
            uvicorn.propagate = True  # as it was: somebody else's uvicorn may log
        super().close()

    def _keep(self, line: str, echo: Callable[[str], object] | None) -> None:
        line = _printable(line)
        self._lines.append(line)
        if echo is not None:
            echo(line)
