"""``toolkit serve --child``: the other end of ``serve(process=True)``.

The parent writes a line of JSON with the settings to standard input, and reads one from standard
output: where the server is, or why there is none. Later a line ``stop SECONDS`` ends the server;
so does the end of standard input, which comes with the end of the parent, however it ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

import typer

from toolkit.cli.stopping import StopOrders
from toolkit.errors import ToolkitError

__all__ = ["serve_child"]

# prctl(PR_SET_PDEATHSIG): the signal that a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1
# Before what the parent is to read (server.process knows it too): libraries may print other lines.
_MARK = "toolkit-serve "


def serve_child(model: str | None) -> None:
    """Serve until the parent says stop, or is no more."""
    order = json.loads(sys.stdin.readline() or "null")
    if order is None:
        raise typer.Exit(1)
    if order["parent_id"] is not None:
        _die_with(order["parent_id"])
    try:
        server = _start(model, order)
    except (ToolkitError, ImportError, OSError) as error:
        _say({"error": type(error).__name__, "message": str(error)})
        raise typer.Exit(1) from error
    with server:
        orders = StopOrders()
        orders.take_signals()
        server.log.echo(_to_stderr, calls=True)
        threading.Thread(target=_listen, args=(orders,), daemon=True).start()
        _say(_whereabouts(server))
        orders.obey(server, lambda: None)


def _start(model: str | None, order: dict[str, Any]) -> Any:
    from toolkit.server.serve import start
    from toolkit.server.settings import ServerSettings

    lists = {name: tuple(v) for name, v in order["settings"].items() if isinstance(v, list)}
    return start(model, ServerSettings(**{**order["settings"], **lists}), order["llm_settings"])


def _whereabouts(server: Any) -> dict[str, Any]:
    held = server.llm.holding()
    return {
        "host": server.address.host,
        "port": server.address.port,
        "model_name": server.model_name,
        "tables": list(server.engine.record.tables),
        "weight_bytes": held.weight_bytes,
        "kv_bytes": held.kv_bytes,
    }


def _listen(orders: StopOrders) -> None:
    """Pass on what the parent says, and its end."""
    for line in sys.stdin:
        word, _, grace_s = line.partition(" ")
        if word == "stop":
            orders.put(float(grace_s))
            return
    orders.put(0.0)


def _die_with(parent_id: int) -> None:
    """Let Linux kill this process when the parent's thread that started it ends.

    Standard input ends too, but a process that is stuck in a long call would not notice.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:  # it died before
        raise typer.Exit(1)


def _say(what: dict[str, Any]) -> None:
    """Write the line that the parent waits for."""
    sys.stdout.write(_MARK + json.dumps(what) + "\n")
    sys.stdout.flush()


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
