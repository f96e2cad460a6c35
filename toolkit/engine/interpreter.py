"""How long another Python thread may keep the interpreter while the engine waits for it.

A step gives the interpreter away a dozen times, whenever it computes outside of Python. A cell that
computes in pure Python then keeps it for sys.getswitchinterval(), 5 ms by default: ten times a step
of a small model. kernels/bench/busy_kernel.py measures what a shorter one is worth.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["SWITCH_INTERVAL_S", "quick_switching"]

# Shorter ones gain little more, and each switch costs both sides some microseconds.
SWITCH_INTERVAL_S = 1e-4

_lock = threading.Lock()
_num_inside = 0
_outside_s = 0.0


@contextmanager
def quick_switching() -> Iterator[None]:
    """Let the interpreter change threads quickly as long as any thread is inside the block.

    A shorter interval that somebody set before is kept, and so is one that is set meanwhile.
    """
    global _num_inside, _outside_s
    with _lock:
        if _num_inside == 0:
            _outside_s = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_INTERVAL_S, _outside_s))
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            # Python keeps whole microseconds, so what comes back is not exactly what was set.
            if _num_inside == 0 and abs(sys.getswitchinterval() - SWITCH_INTERVAL_S) < 1e-6:
                sys.setswitchinterval(_outside_s)
