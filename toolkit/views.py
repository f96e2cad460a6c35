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
    """Return where another run comes out differently first (`toolkit.simulate.diff`)."""
    return import_module("toolkit.simulate").diff(record, other, llm)


def dashboard(server: Any, **options: Any) -> Any:
    """Return a ``Dashboard`` of this server; the options are that widget's."""
    return import_module("toolkit.widgets").Dashboard(server, **options)


# By the module and the name of a class: what is hung on it, under the function's own name.
_HANGINGS: dict[tuple[str, str], tuple[Callable[..., Any], ...]] = {
    ("toolkit.record", "Record"): (timeline, block_map, engine_at, replay, diff),
    ("toolkit.server.server_handle", "ServerHandle"): (dashboard,),
}


def hang() -> None:
    """Put the methods on those classes whose modules are loaded; harmless the second time.

    What is not loaded yet stays so: asking for ``EngineConfig`` must not load a web server.
    """
    for (module, name), methods in _HANGINGS.items():
        kind = getattr(sys.modules.get(module), name, None)
        for method in methods if kind is not None else ():
            setattr(kind, method.__name__, method)
