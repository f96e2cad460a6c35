"""ServerProcess: a server in a process of its own, which ends with this one at the latest."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from os import PathLike, fspath
from typing import IO, Any

import httpx

from toolkit import errors
from toolkit.errors import InvalidConfig, ToolkitError
from toolkit.registry import Holding, register, resident_bytes
from toolkit.server.address import Address
from toolkit.server.logs import LogLines
from toolkit.server.metrics_table import MetricsTable
from toolkit.server.remote_engine import RemoteEngine
from toolkit.server.server_handle import ServerHandle
from toolkit.server.settings import ServerSettings

__all__ = ["ServerProcess"]

# Before the lines that the child writes for us; cli.serve_child knows it too.
_MARK = "toolkit-serve "
_MAX_LOG_LINES = 1000
_LOOK_S = 1.0  # how long a cell waits for what the process says of itself
_COUNTED = ("running", "waiting")
# A child that was told to stop, and whose grace is over, is killed after this time: it may be in
# a long step.
_PATIENCE_S = 10.0


class ServerProcess(ServerHandle):
    """A running OpenAI-compatible server in a process of its own; use ``serve(process=True)``.

    Whatever this process computes does not slow it down. Its engine is a view: tables and
    snapshots come by HTTP. Also a context manager, which stops it.

    Args:
        model: A folder or hub id; None for the demo model.
        settings: The server's.
        llm_settings: Those of the ``LLM`` that the process makes.

    Raises:
        InvalidConfig: what cannot be sent to another process was given.
        ToolkitError: whatever the process raised when it started.
    """

    def __init__(
        self, model: str | None, settings: ServerSettings, llm_settings: Mapping[str, Any]
    ) -> None:
        self.settings = settings
        self._lines: deque[str] = deque(maxlen=_MAX_LOG_LINES)
        self._stop_lock = threading.Lock()
        control_key = secrets.token_hex(16)
        order = _order(settings, llm_settings, control_key)
        self._process = _spawn(model)
        self._readers = [_reader(_pipe(self._process.stderr), self._lines)]
        try:
            self._found = self._start(order)
        except BaseException:
            self._end()
            raise
        self._readers.append(_reader(_pipe(self._process.stdout), self._lines))
        self.address = Address(
            host=self._found["host"],
            port=self._found["port"],
            uds=settings.uds,
            certfile=settings.ssl_certfile,
            api_key=next(iter(settings.api_keys), None),
        )
        self._engine = RemoteEngine(self.address, control_key, self._found["tables"])
        atexit.register(self.stop, grace_s=0.0)
        register(self)

    @property
    def model_name(self) -> str:
        """The first name that the model answers to."""
        return str(self._found["model_name"])

    # ---- look inside

    @property
    def engine(self) -> RemoteEngine:
        """A view of the engine that answers: ``.record`` with its tables, ``.snapshot()``."""
        return self._engine

    @property
    def logs(self) -> LogLines:
        """The last lines of the log, oldest first, and whatever else the process printed."""
        return LogLines(self._lines)

    @property
    def metrics(self) -> MetricsTable:
        """What ``GET /metrics`` says now: a mapping from names to values, a table in a cell.

        Raises:
            EngineError: the process has ended.
        """
        return MetricsTable(self._engine.ask("GET", "/metrics").text)

    @property
    def process_id(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def holding(self) -> Holding | None:
        """Say what is held, for ``toolkit.live()``; None once the process has ended."""
        if not self.is_running:
            return None
        return Holding(
            kind="server process",
            name=self.model_name,
            state=f"process {self.process_id}",
            where=self.address.place,
            weight_bytes=self._found["weight_bytes"],
            kv_bytes=self._found["kv_bytes"],
            resident_bytes=resident_bytes(self.process_id),
        )

    # ---- end

    def stop(self, *, grace_s: float | None = None) -> None:
        """Free the port; running answers get ``grace_s`` seconds to end, then are aborted.

        Returns when the process has ended. Idempotent.
        """
        grace_s = self.settings.grace_s if grace_s is None else max(0.0, grace_s)
        with self._stop_lock:
            atexit.unregister(self.stop)
            if self.is_running:
                with suppress(OSError):  # it ended just now
                    self._write(f"stop {grace_s}\n")
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(grace_s + _PATIENCE_S)
            self._end()

    # ---- looks

    def _facts(self) -> dict[str, str]:
        if not self.is_running:
            return {}
        memory = resident_bytes(self.process_id)
        facts = {"process": str(self.process_id)}
        if memory is not None:
            facts["memory"] = f"{memory / 1024**2:,.0f} MiB"
        # Not by the engine's view: a cell that is displayed must not wait for a stuck process.
        with suppress(httpx.HTTPError), self.address.http_client(timeout=_LOOK_S) as http:
            counts = MetricsTable(http.get("/metrics").raise_for_status().text)
            running, waiting = (counts[f"vllm:num_requests_{which}"] for which in _COUNTED)
            facts = {"requests": f"{running:.0f} running, {waiting:.0f} waiting", **facts}
        return facts

    # ---- inside

    def _start(self, order: str) -> dict[str, Any]:
        """Give the order; return where the server is when it runs."""
        with suppress(OSError):  # it ended at once: its last words say why
            self._write(order + "\n")
        for line in _pipe(self._process.stdout):
            if not line.startswith(_MARK):
                self._lines.append(line.rstrip())
                continue
            answer: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            if "error" in answer:
                raise _own_error(answer["error"])(answer["message"])
            return answer
        code = self._process.wait()
        for reader in self._readers:
            reader.join()
        raise ToolkitError(
            f"the server process ended with code {code} before it was ready; its last words:\n"
            + "\n".join(list(self._lines)[-20:])
        )

    def _write(self, text: str) -> None:
        pipe = _pipe(self._process.stdin)
        pipe.write(text)
        pipe.flush()

    def _end(self) -> None:
        """Make sure that the process is no more, and let go of its pipes."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            _pipe(self._process.stdin).close()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            _pipe(pipe).close()


def _spawn(model: str | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "toolkit", "serve"]
    return subprocess.Popen(
        [*command, *([model] if model is not None else []), "--child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # an interrupt of the kernel's cell is none of the server
    )


def _order(settings: ServerSettings, llm_settings: Mapping[str, Any], control_key: str) -> str:
    """Write the settings down; standard input carries them, where nobody else can read a key."""
    for name in ("processors", "hooks"):
        if getattr(settings, name):
            raise InvalidConfig(
                f"{name}= cannot go to another process: they are objects of this one; serve "
                "without process=True"
            )
    names = {field.name for field in fields(settings)} - {"processors", "hooks"}
    own = {name: getattr(settings, name) for name in sorted(names)}
    is_main = threading.current_thread() is threading.main_thread()
    return json.dumps(
        {
            # Linux watches the thread that starts a process: only the main one lives long enough.
            "parent_id": os.getpid() if is_main else None,
            "settings": {**own, "control_key": control_key},
            "llm_settings": {name: _plain(name, value) for name, value in llm_settings.items()},
        }
    )


def _plain(name: str, value: Any) -> Any:
    """Return a setting as JSON can say it."""
    if isinstance(value, PathLike):
        return fspath(value)
    if name == "dtype":
        return str(value).removeprefix("torch.")
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(
            f"{name}={value!r:.80} cannot go to another process: with process=True settings are "
            "names, numbers and paths"
        ) from error
    return value


def _own_error(name: str) -> type[ToolkitError]:
    """Return the class of an error by its name; ToolkitError for what is not ours."""
    found = getattr(errors, name, ToolkitError)
    return found if isinstance(found, type) and issubclass(found, ToolkitError) else ToolkitError


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # all three were asked for
    return pipe


def _reader(pipe: IO[str], lines: deque[str]) -> threading.Thread:
    """Collect what comes through a pipe, until its other end closes."""

    def read() -> None:
        for line in pipe:
            lines.append(line.rstrip())

    thread = threading.Thread(target=read, name="toolkit-serve-log", daemon=True)
    thread.start()
    return thread
