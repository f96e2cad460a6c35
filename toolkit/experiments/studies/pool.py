"""Do pieces of work one after another, or on several cores; an interrupt ends them at once."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

from toolkit.errors import InvalidConfig

__all__ = ["check_processes", "results_of"]

T = TypeVar("T")

# Of a worker process: what it may be asked to do. Nothing is put here in the process of a user.
_work: list[Callable[[], Any]] = []


def check_processes(processes: Any) -> None:
    """Refuse a number of processes that is none; raises InvalidConfig."""
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise InvalidConfig(f"processes={processes!r} must be a whole number, 1 or more")


def results_of(work: Sequence[Callable[[], T]], *, processes: int = 1) -> Iterator[tuple[int, T]]:
    """Call each piece of work once; yield its place and what it returned, as they are done.

    Workers are forks of this process, so the work may be anything, a policy of a notebook's cell
    included; what it returns is pickled. On an interrupt or an error those that are still at work
    are killed, so work that leaves something behind must leave it whole or not at all.

    Raises:
        InvalidConfig: several processes on a system that cannot fork.
    """
    check_processes(processes)
    if processes == 1 or len(work) < 2:
        for place, piece in enumerate(work):
            yield place, piece()
        return
    if sys.platform == "win32":
        raise InvalidConfig("processes: this system cannot fork; leave processes=1")
    others = set(active_children())
    pool = ProcessPoolExecutor(
        min(processes, len(work)), get_context("fork"), initializer=_hold, initargs=(work,)
    )
    try:
        with warnings.catch_warnings():
            # Python warns of forking beside other threads. A worker runs no code that they lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            places = {pool.submit(_do, place): place for place in range(len(work))}
        for done in as_completed(places):
            yield places[done], done.result()
    except BaseException:
        for worker in set(active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _hold(work: Sequence[Callable[[], Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the process that waits for this one
    _work[:] = work


def _do(place: int) -> Any:
    return _work[place]()
