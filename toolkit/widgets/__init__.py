"""Views of an engine, a server, a record: to draw, to click, to step through in a notebook.

    >>> from toolkit.widgets import BlockMap, Timeline               # doctest: +SKIP

A widget takes its source: an LLM, an Engine, a Server, a Record, or the path of a saved one.
"""

from __future__ import annotations

from toolkit.widgets.base import Widget
from toolkit.widgets.block_map import BlockMap
from toolkit.widgets.dashboard import Dashboard
from toolkit.widgets.engine_debugger import EngineDebugger
from toolkit.widgets.logit_lens import LogitLens
from toolkit.widgets.sampler_lab import SamplerLab
from toolkit.widgets.server_panel import ServerPanel
from toolkit.widgets.side_by_side import SideBySide
from toolkit.widgets.source import Source, open_source
from toolkit.widgets.timeline import Timeline
from toolkit.widgets.token_view import TokenView
from toolkit.widgets.waterfall import Waterfall

__all__ = [
    "BlockMap",
    "Dashboard",
    "EngineDebugger",
    "LogitLens",
    "SamplerLab",
    "ServerPanel",
    "SideBySide",
    "Source",
    "Timeline",
    "TokenView",
    "Waterfall",
    "Widget",
    "open_source",
]
