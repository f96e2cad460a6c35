"""Share this process's threads with the other processes of its models, for as long as any lives.

torch has one number of threads for all models of a process: the first model in several processes
lowers it, the last one that ends restores it, in whatever order they end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import torch

__all__ = ["share_threads"]


class _Shares:
    """Who shares this process's threads, and how many there were before."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a model may be collected while another one starts
        self._held: dict[int, int] = {}  # threads for each process, by holder
        self._num_holders = 0  # ever
        self._before = 0  # threads without any holder
        self._own: tuple[int, int] | None = None  # what was set here last, and by which thread

    def hold(self, size: int) -> tuple[int, int]:
        """Share among ``size`` processes; return the holder's number and each one's threads."""
        with self._lock:
            if not self._held or self._is_users():
                self._before = torch.get_num_threads()
            share = max(1, self._before // size)
            self._num_holders += 1
            self._held[self._num_holders] = share
            self._set(min(self._held.values()))
            return self._num_holders, share

    def release(self, holder: int) -> None:
        """Share no longer; idempotent."""
        with self._lock:
            if self._held.pop(holder, None) is None or self._is_users():
                return
            self._set(min(self._held.values(), default=self._before))

    def _set(self, count: int) -> None:
        torch.set_num_threads(count)
        self._own = count, threading.get_ident()

    def _is_users(self) -> bool:
        """Whether the number is not the one that was set here; another thread may not see that."""
        if self._own is None:
            return True
        count, thread = self._own
        return thread == threading.get_ident() and torch.get_num_threads() != count


_SHARES = _Shares()


def share_threads(size: int) -> tuple[int, Callable[[], None]]:
    """Lower this process's threads to its share among ``size``; return that, and what ends it.

    With the end of the last one the number is what it was, unless somebody has set another since.
    """
    holder, share = _SHARES.hold(size)
    return share, partial(_SHARES.release, holder)
