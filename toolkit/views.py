"""Calls that reach upwards, hung on the classes of lower rooms: record.timeline() and the like.

The one file with upward calls. A room that draws or rebuilds imports the room it looks at, never
the other way round; so what a user wants to type on the lower object is put there from here,
whenever ``toolkit`` hands out a name. Each method imports its room when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["hang"]


def timeline(record: Any, **options: Any) -> Any:
    """Return a ``Timeline`` of this record; the options are that widget's."""
    return import_module("toolkit.widgets").Timeline(record, **options)


def block_map(record: Any, **options: Any) -> Any:
    """Return a ``BlockMap`` of this record; the options are that widget's."""
    return import_module("toolkit.widgets").BlockMap(record, **options)


def engine_at(record: Any, step: int, llm: Any = None) -> Any:
    """Return a separate engine just before a step of this run (`toolkit.simulate.engine_at`)."""
    return import_module("toolkit.simulate").engine_at(record, step, llm)


def replay(record: Any, llm: Any = None) -> Any:
    """Run what was recorded again and return its record (`toolkit.simulate.replay`)."""
    return import_module("toolkit.simulate").replay(record, llm)


def diff(record: Any, other: Any, llm: Any = None) -> Any:
    """Return the first token that differs in another run, or None (`toolkit.simulate.diff`)."""
    return import_module("toolkit.simulate").diff(record, other, llm)


def dashboard(server: Any, **options: Any) -> Any:
    """Return a ``Dashboard`` of this server; the options are that widget's.

    Unless ``load=`` says otherwise, its button starts a few clients that ask and ask again.
    """
    options.setdefault("load", import_module("toolkit.server.closed_loop").ClosedLoop(server))
    return import_module("toolkit.widgets").Dashboard(server, **options)


def panel(server: Any) -> Any:
    """Return the ``ServerPanel`` of this server, always the same one."""
    if "_panel" not in vars(server):
        server._panel = import_module("toolkit.widgets").ServerPanel(server)
    return server._panel


def _repr_mimebundle_(server: Any, **kwargs: Any) -> Any:
    """Show the panel in a notebook; without one, or without anywidget, the server's own table."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return {}
    try:
        data, metadata = panel(server)._repr_mimebundle_(**kwargs)
    except ImportError:
        return {}
    return {**data, "text/plain": repr(server), "text/html": server._repr_html_()}, metadata


# By the module and the name of a class: what is hung on it, under the function's own name.
_HANGINGS: dict[tuple[str, str], tuple[Callable[..., Any], ...]] = {
    ("toolkit.record", "Record"): (timeline, block_map, engine_at, replay, diff),
    ("toolkit.server.server_handle", "ServerHandle"): (dashboard, panel, _repr_mimebundle_),
}


def hang() -> None:
    """Put the methods on those classes whose modules are loaded; harmless the second time.

    What is not loaded yet stays so: asking for ``EngineConfig`` must not load a web server.
    """
    for (module, name), methods in _HANGINGS.items():
        kind = getattr(sys.modules.get(module), name, None)
        for method in methods if kind is not None else ():
            setattr(kind, method.__name__, method)
