"""What must be true of an engine when everybody has gone."""

from __future__ import annotations

import time

from toolkit.llm import LLM

__all__ = ["require_at_rest"]


def require_at_rest(llm: LLM, *, timeout_s: float = 60.0) -> None:
    """Fail unless the engine soon has no request, holds no block, and contradicts itself nowhere.

    Clients that leave are noticed a moment later: their requests may still run when this begins.
    """
    scheduler = llm.engine.scheduler
    deadline_s = time.monotonic() + timeout_s
    while (scheduler.num_running or scheduler.num_waiting) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    with llm.engine.paused():
        scheduler.check()
        assert not scheduler.running
        assert not scheduler.waiting
        assert scheduler.cache.num_free_blocks == scheduler.cache.num_blocks
