"""Views of an engine, a server, a record: to draw, to click, to step through in a notebook.

    >>> from toolkit.widgets import BlockMap, Timeline               # doctest: +SKIP

A widget takes its source: an LLM, an Engine, a Server, a Record, or the path of a saved one.
"""

from __future__ import annotations

from toolkit.widgets.base import Widget
from toolkit.widgets.block_map import BlockMap
from toolkit.widgets.source import Source, open_source
from toolkit.widgets.timeline import Timeline

__all__ = ["BlockMap", "Source", "Timeline", "Widget", "open_source"]
