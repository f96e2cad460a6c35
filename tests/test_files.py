"""Whatever is saved makes the folders that lack, and says what to do where that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.experiments.made_runs import made_run
from tests.experiments.toy import Toy
from toolkit.cli.bench.results import BenchResult
from toolkit.errors import InvalidConfig
from toolkit.experiments import Fixed, Poisson, Workload, report
from toolkit.experiments.catalogue import EXPERIMENTS
from toolkit.experiments.catalogue.result import Result
from toolkit.experiments.runs.results import Run
from toolkit.files import ready_to_write
from toolkit.record import Record
from toolkit.widgets.fallback import written

LOAD = Workload(Poisson(1.0), Fixed(8, 2), num_requests=2)
SAVERS: dict[str, Callable[[Path], object]] = {
    "a record": lambda path: Record().save(path),
    "a run": lambda path: made_run([0.1] * 5).save(path),
    "a workload": LOAD.to_csv,
    "a workload for Vidur": lambda path: LOAD.to_csv(path, format="vidur"),
    "a benchmark": BenchResult("latency", {}, {}, {}).save,
    "a widget's picture": lambda path: written(b"picture", path),
}


@pytest.mark.parametrize("saver", SAVERS)
def test_folders_that_lack_are_made(saver: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file"
    SAVERS[saver](path)
    assert path.is_file()
    assert [each.name for each in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("saver", SAVERS)
def test_a_folder_in_the_way_is_named(saver: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=f"{tmp_path} is a folder"):
        SAVERS[saver](tmp_path)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidConfig, match=r"file is a file and no folder: choose"):
        ready_to_write(tmp_path / "file" / "new")
    with pytest.raises(InvalidConfig, match=r"file is a file and no folder: choose"):
        ready_to_write(tmp_path / "file" / "deep" / "new")
    with pytest.raises(InvalidConfig, match=r"file is a file and no folder: choose"):
        Toy().run().save(tmp_path / "file")


def test_a_link_to_nothing_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("link/new", "link/deep/new"):
        with pytest.raises(InvalidConfig, match=r"link is a link to nowhere, which is not there"):
            ready_to_write(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/file"])
def test_a_name_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"cannot be written, for file name too long: choose"):
        ready_to_write(tmp_path / name)


def test_what_is_saved_below_home_is_loaded_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    Record().save("~/record")
    made_run([0.1] * 5).save("~/run")
    LOAD.to_csv("~/load.csv")
    Toy().run().save("~/toy")
    BenchResult("latency", {}, {}, {}).save(Path("~/bench"))
    Record.load("~/record")
    Run.load("~/run")
    assert len(Workload.from_trace("~/load.csv", format="toolkit")) == 2
    assert Result.load("~/toy").name == "toy"
    with pytest.raises(InvalidConfig, match="home/new holds no results"):
        report("~/new")
    assert BenchResult.load(Path("~/bench")).benchmark == "latency"
    assert sorted(path.name for path in home.iterdir()) == [
        *("bench", "load.csv", "record", "run", "toy")
    ]
    assert list(tmp_path.iterdir()) == [home]


def test_results_and_their_page_make_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "toy", Toy())
    Toy().run().save(tmp_path / "new" / "deep" / "toy")
    page = report(tmp_path / "new" / "deep", tmp_path / "pages" / "page.html")
    assert page.is_file()
