"""Tell OpenMP how long an idle thread may spin, before torch is loaded and it is too late.

torch shares its operations among a pool of OpenMP threads. Between two operations the others wait,
by default spinning on their core: right on a quiet machine, and ruinous beside another busy
process, where the spinner holds the core that the worker needs. The pool reads its settings once,
when torch is loaded, so ``import toolkit`` comes before ``import torch`` wherever that matters.
"""

from __future__ import annotations

import logging
import os
import sys

__all__ = ["SPIN_COUNT", "notice_if_late", "set_wait_policy"]

logger = logging.getLogger(__name__)

# Turns of the waiting loop before a thread sleeps: measured best over a quiet machine and one with
# another process on one of its cores (kernels/bench/contention.py).
SPIN_COUNT = 3_000
_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")

_is_late = False


def set_wait_policy() -> None:
    """Choose how idle threads wait, unless the user has, or torch is loaded already."""
    global _is_late
    if any(name in os.environ for name in _VARIABLES):
        return
    if "torch" in sys.modules:
        _is_late = True
        return
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def notice_if_late() -> None:
    """Say once what is lost where torch was imported first."""
    global _is_late
    if _is_late:
        _is_late = False
        logger.warning(
            "torch was imported before toolkit, so idle threads spin: beside another busy process "
            "this engine may run several times slower; import toolkit first, or set "
            "GOMP_SPINCOUNT=%d",
            SPIN_COUNT,
        )
