"""Work is done once each, in one process or several."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from multiprocessing import active_children

import pytest

from toolkit.errors import InvalidConfig
from toolkit.experiments.studies.pool import results_of


@pytest.mark.parametrize("processes", [1, 2])
def test_each_piece_of_work_is_done_once(processes: int) -> None:
    factor = 10  # closures need no pickling
    work = [lambda place=place: place * factor for place in range(7)]
    assert sorted(results_of(work, processes=processes)) == [(i, 10 * i) for i in range(7)]


def test_several_processes_do_the_work() -> None:
    pids = {pid for _, pid in results_of([os.getpid] * 4, processes=2)}
    assert os.getpid() not in pids
    assert {pid for _, pid in results_of([os.getpid] * 4)} == {os.getpid()}


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_work_is_raised(processes: int) -> None:
    def fail() -> None:
        raise InvalidConfig("no such thing")

    with pytest.raises(InvalidConfig, match="no such thing"):
        list(results_of([fail, fail], processes=processes))


@pytest.mark.parametrize("processes", [0, -1, True, 1.5])
def test_a_number_of_processes_without_sense_is_refused(processes: object) -> None:
    with pytest.raises(InvalidConfig, match="processes"):
        list(results_of([], processes=processes))  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupt_ends_the_work_at_once(processes: int) -> None:
    """What was done has been left behind; what is under way would take for ever."""

    def piece(place: int) -> int:
        if place:
            threading.Event().wait()
        return place

    work = [partial(piece, place) for place in range(4)]
    results = results_of(work, processes=processes)
    assert next(results) == (0, 0)
    main = threading.main_thread().ident
    threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert not active_children()
