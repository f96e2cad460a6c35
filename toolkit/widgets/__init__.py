"""Views of an engine, a server, a record: to draw, to click, to step through in a notebook.

    >>> from toolkit.widgets import BlockMap, Timeline               # doctest: +SKIP

A widget takes its source: an LLM, an Engine, a Server, a Record, or the path of a saved one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Loaded on first use: each brings its script, and some bring matplotlib.
_HOMES: dict[str, str] = {}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'toolkit.widgets' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
