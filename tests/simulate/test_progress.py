"""A bar is on the screen while nothing ends, and leaves it as it should."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import nbformat
import pytest
from nbclient import NotebookClient

from toolkit.simulate import progress as bars
from toolkit.simulate.progress import progress_bar


@pytest.fixture(autouse=True)
def in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_DELAY_S", 0.02)
    monkeypatch.setattr(bars, "_EVERY_S", 0.02)
    monkeypatch.setattr(bars, "_is_interactive", lambda: True)


def shown(capsys: pytest.CaptureFixture[str], told: Callable[[str], bool]) -> str:
    """Return what was written to the terminal, once it is what is waited for."""
    text, end_s = "", time.monotonic() + 10
    while not told(text) and time.monotonic() < end_s:
        time.sleep(0.01)
        sys.stderr.flush()
        text += capsys.readouterr().err
    return text


def test_a_bar_is_drawn_before_the_first_unit_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(3, "Work", unit="load", progress=None):
        assert "0/3" in shown(capsys, lambda text: "0/3" in text)
    assert capsys.readouterr().err.endswith("\n")


def test_what_ends_at_once_shows_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "_DELAY_S", 100.0)
    with progress_bar(1, "Work", unit="load", progress=None) as bar:
        bar.update()
    assert not capsys.readouterr().err


def test_a_bar_inside_another_vanishes(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(2, "Whole", unit="run", progress=None):
        with progress_bar(5, "Part", unit="request", progress=None):
            shown(capsys, lambda text: "Whole" in text and "Part" in text)
        assert "Part" not in capsys.readouterr().err.rpartition("\r")[2]
    assert "Whole" in capsys.readouterr().err


def test_the_time_that_is_left_is_told_by_all_units_so_far() -> None:
    with progress_bar(10, "Work", unit="run", progress=True) as bar:
        bar.start_t -= 40
        bar.update(0)  # as a bar inside it does, again and again
        time.sleep(0.15)
        bar.update()
        elapsed_s = bar.format_dict["elapsed"]
        assert "<06:0" in str(bar)
    assert 40 < elapsed_s < 50


def test_a_hidden_bar_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(1, "Work", unit="load", progress=False) as bar:
        bar.update()
    assert not capsys.readouterr().err


IN_A_CELL = """
import threading, time
import comm

senders, create = set(), comm.create_comm

def watched(*args, **options):
    made = create(*args, **options)
    publish = made.publish_msg

    def note(*args, **options):
        senders.add(threading.current_thread().name)
        return publish(*args, **options)

    made.publish_msg = note
    senders.add(threading.current_thread().name)
    return made

comm.create_comm = watched

from toolkit.simulate import progress as bars

bars._DELAY_S = bars._EVERY_S = 0.05
with bars.progress_bar(3, "Whole", unit="run", progress=None) as bar:
    time.sleep(0.3)
    with bars.progress_bar(9, "Part", unit="request", progress=False) as hidden:
        hidden.update()
    print("shown:", bar.displayed)
    other = threading.Thread(target=bar.update)
    other.start()
    other.join()
    print("counted:", bar.n)
    bar.update()
print("drawn by:", *senders)
"""


def test_in_a_notebook_only_the_thread_of_the_cell_draws_a_bar():
    cell = nbformat.v4.new_code_cell(IN_A_CELL)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    told = "".join(out.text for out in cell.outputs if out.output_type == "stream")
    assert told == "shown: True\ncounted: 1\ndrawn by: MainThread\n"
    views = [out for out in cell.outputs if out.output_type == "display_data"]
    assert len(views) == 1
