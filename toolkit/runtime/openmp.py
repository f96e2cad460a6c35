"""Let the thread that runs the steps be the only one with a pool of OpenMP threads.

GNU OpenMP keeps a pool for every thread that ever ran a parallel operation, and as soon as all
pools together have more threads than there are cores, idle threads go to sleep at once: waking them
again costs some 80 us, several times in every layer. A model is loaded in one thread and its steps
run in another, so the first one's pool must go; it comes back when that thread needs it.
"""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["release_pool"]

_SOFT_PAUSE = 1  # omp_pause_soft: the settings stay


def release_pool() -> None:
    """End the OpenMP threads of the calling thread; does nothing where there are none."""
    pause = _pause()
    if pause is not None:
        pause(_SOFT_PAUSE)


@cache
def _pause() -> ctypes._NamedFuncPointer | None:
    """Find the function in the OpenMP runtime that torch has loaded; None if it has no such."""
    try:
        return ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):  # not GNU's, or a system without such a look-up
        return None
