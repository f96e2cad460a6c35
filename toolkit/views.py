"""Calls that reach upwards, hung on the classes of lower rooms: record.timeline() and the like.

The one file with upward calls. A room that draws or rebuilds imports the room it looks at, never
the other way round; so what a user wants to type on the lower object is put there from here, once,
when ``toolkit`` hands out the first name of a room. Each method imports its room when it is called.
"""

from __future__ import annotations

__all__ = ["hang"]


def hang() -> None:
    """Put the methods on their classes; harmless the second time."""
