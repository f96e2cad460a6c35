"""A folder of results becomes one page that needs nothing else."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from tests.experiments.made_runs import made_run
from tests.experiments.toy import Toy
from toolkit.errors import InvalidConfig
from toolkit.experiments import Fixed, Poisson, Workload
from toolkit.experiments.catalogue import EXPERIMENTS
from toolkit.experiments.reports import report


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    toy = Toy()
    monkeypatch.setitem(EXPERIMENTS, "toy", toy)
    toy.run(seed=4).save(tmp_path / "toy")
    return tmp_path


def test_a_page_holds_figure_verdicts_tables_and_the_command(folder: Path) -> None:
    path = report(folder)
    page = path.read_text()
    assert path == folder / "report.html"
    assert "toolkit experiment run toy --size quick --seed 4" in page
    assert page.count("data:image/png;base64,") == 1
    assert "1 of 1 arithmetic claims reproduced; 1 not measured" in page
    assert "curve.csv</code>, 100 rows, the first 60 of them" in page
    assert "0.3333" in page
    assert "python" in page


def test_what_results_say_is_text_and_not_markup(folder: Path) -> None:
    page = report(folder).read_text()
    assert "Is a toy &lt;quick&gt;?" in page
    assert "needs &lt;a model&gt;" in page
    assert "<b>" not in page


def test_a_page_asks_nothing_of_the_network(folder: Path) -> None:
    page = report(folder, folder / "other.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page


def test_the_figure_that_was_saved_is_the_one_shown(folder: Path) -> None:
    (folder / "toy" / "figure.png").write_bytes(b"picture")
    assert "cGljdHVyZQ==" in report(folder).read_text()


def test_tables_that_cannot_be_drawn_are_named(folder: Path) -> None:
    (folder / "toy" / "curve.csv").write_text("nothing\n")
    with pytest.raises(InvalidConfig, match=r"the tables in .*toy cannot be drawn"):
        report(folder)


def test_saved_runs_are_shown_too(folder: Path, tmp_path: Path) -> None:
    run = made_run([0.1, 0.2, 0.3] * 5, block_size=16)
    (folder / "server").mkdir()
    run.save(folder / "server" / "run-1.zip")
    page = report(folder).read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "server/run-1.zip" in page
    assert "Run of made" in page
    assert "block_size" in page
    run.save(tmp_path / "run-0.zip")
    assert "run-0.zip" in report(tmp_path).read_text()


def test_a_run_can_be_asked_again_and_its_machine_is_there_once(tmp_path: Path) -> None:
    for number, load in enumerate((0.5, 2.5)):
        run = made_run([0.1, 0.2, 0.3] * 5, on="server", model="toy", num_processes=2)
        run.environment = {"cpu": "a cpu", "url": "http://here:1", "load_average_1_min": load}
        run.workload = Workload(Poisson(4.0), Fixed(8, 3), num_requests=15)
        run.save(tmp_path / f"run-{number}.zip")
    page = unescape(report(tmp_path).read_text())
    assert page.count("a cpu") == 1
    assert "0.5, 2.5" in page
    again = "Run.load('run-1.zip').workload, on='http://here:1', model='toy', processes=2)"
    assert again in page


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="holds no results"):
        report(tmp_path)
