"""Keep Python's garbage collector from searching all of torch while something is served or timed.

A full collection looks at every object of the process: half a million after `import torch`, a fifth
of a second during which no thread runs Python. A call makes enough short-lived objects to start one
every few hundred calls. Objects that exist when a server or a measured load starts are set aside
until the last one ends: they still go when nothing refers to them, but cycles among them are not
searched for.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["old_objects_set_aside"]

_lock = threading.Lock()
_num_inside = 0


@contextmanager
def old_objects_set_aside() -> Iterator[None]:
    """Leave all objects that exist now out of collections for the length of the block; nests."""
    global _num_inside
    with _lock:
        if _num_inside == 0:
            gc.collect()
            gc.freeze()
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if _num_inside == 0:
                gc.unfreeze()
