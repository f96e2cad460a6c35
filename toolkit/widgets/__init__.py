"""Views of an engine, a server, a record: to draw, to click, to step through in a notebook.

    >>> from toolkit.widgets.base import Widget
from toolkit.widgets.block_map import BlockMap
from toolkit.widgets.dashboard import Dashboard
from toolkit.widgets.source import Source, open_source
from toolkit.widgets.timeline import Timeline

__all__ = [
    "BlockMap",
    "Dashboard",
    "Source",
    "Timeline",
    "Widget",
    "open_source",
]
