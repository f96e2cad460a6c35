"""A run that was saved is the same run when it is read; what is no run is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit import experiments
from toolkit.errors import RecordError
from toolkit.experiments import Constant, Fixed, Run, Workload
from toolkit.experiments.runs.run_file import MAX_MEMBER_BYTES
from toolkit.experiments.runs.saturation import saturation
from toolkit.simulate import Machine


@pytest.fixture(scope="module")
def run() -> Run:
    tags = {"tenant": ["a", "b"], "tier": [1, 2]}
    w = Workload(Constant(5.0), Fixed(64, 6), num_requests=6, tags=tags)
    run = experiments.run(w, on=Machine("opt-13b", "A100-40GB"), level="tokens")
    run.saturation = saturation([0.1], [0.0])
    run.notes.append("a note")
    run.requests.loc[2, ["status", "error", "num_cached_tokens"]] = ["failed", "429: \n,\"'", pd.NA]
    return run


@pytest.fixture(scope="module")
def saved(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.save(tmp_path_factory.mktemp("runs") / "run.zip")


def test_a_run_is_read_as_it_was_saved(run: Run, saved: Path) -> None:
    loaded = Run.load(saved)
    pd.testing.assert_frame_equal(loaded.requests, run.requests)
    pd.testing.assert_frame_equal(loaded.tokens, run.tokens)
    for name in ("workload_description", "settings", "environment", "notes", "saturation"):
        assert str(getattr(loaded, name)) == str(getattr(run, name)), name
    assert not loaded.is_interrupted
    assert loaded.record is not None
    assert run.record is not None
    pd.testing.assert_frame_equal(loaded.record.steps, run.record.steps)
    pd.testing.assert_frame_equal(loaded.summary(), run.summary())


def test_what_was_asked_can_be_asked_again(run: Run, saved: Path) -> None:
    workload = Run.load(saved).workload
    assert workload is not None
    again = experiments.run(workload, on=Machine("opt-13b", "A100-40GB"))
    times = again.requests["ttft_s"].drop(2)
    assert times.tolist() == run.requests["ttft_s"].drop(2).tolist()


def test_a_run_without_a_record_or_tokens_is_saved_too(run: Run, tmp_path: Path) -> None:
    bare = Run(run.requests, run.tokens.head(0), is_interrupted=True)
    loaded = Run.load(bare.save(tmp_path / "bare.zip"))
    assert loaded.is_interrupted
    assert loaded.record is None
    assert loaded.workload is None
    pd.testing.assert_frame_equal(loaded.tokens, bare.tokens)


def edited(saved: Path, folder: Path, **members: str | bytes | None) -> Path:
    """Copy a file with members replaced, or left out (None)."""
    path = folder / "edited.zip"
    names = {name.replace("_", "."): content for name, content in members.items()}
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = names.get(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return path


def header(saved: Path, **changes: object) -> str:
    with zipfile.ZipFile(saved) as archive:
        return json.dumps({**json.loads(archive.read("run.json")), **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "toolkit-record"}, "is no run"),
        ({"version": 99}, "newer version"),
        ({"settings": [1]}, "settings"),
        ({"settings": {"on": 5}}, "settings: on=5"),
        ({"environment": {"url": 3}}, "environment: url=3"),
        ({"notes": None}, "notes"),
        ({"saturation": {"cpu_share": 1.0}}, "saturation"),
        ({"saturation": 3}, "damaged"),
        ({"is_interrupted": "no"}, "is_interrupted"),
    ],
)
def test_a_header_that_is_wrong_is_refused(
    saved: Path, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(RecordError, match=says):
        Run.load(edited(saved, tmp_path, run_json=header(saved, **changes)))


@pytest.mark.parametrize(
    "members",
    [
        {"run_json": "[]"},
        {"run_json": None},
        {"requests_csv": "a,b\n1,2\n"},
        {"requests_csv": ""},
        {"tokens_npz": b"PK"},
        {"tokens_npz": None},
        {"workload_csv": "nonsense"},
        {"record_zip": b"nonsense"},
    ],
)
def test_a_member_that_is_damaged_is_refused(
    saved: Path, tmp_path: Path, members: dict[str, str | bytes | None]
) -> None:
    with pytest.raises(RecordError):
        Run.load(edited(saved, tmp_path, **members))


def test_cells_that_are_no_numbers_are_refused(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        text = archive.read("requests.csv").decode()
    spoilt = text.replace("64,", "many,")
    with pytest.raises(RecordError):
        Run.load(edited(saved, tmp_path, requests_csv=spoilt))
    with pytest.raises(RecordError, match="column __class__"):
        Run.load(edited(saved, tmp_path, requests_csv=text.replace("tags.tier", "__class__")))


def test_several_rows_of_one_arrival_are_refused(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        head, *rows = archive.read("requests.csv").decode().splitlines(keepends=True)
    twice = "".join([head, *rows, *rows])
    with pytest.raises(RecordError, match="several rows of one arrival_id"):
        Run.load(edited(saved, tmp_path, requests_csv=twice))


def test_a_file_that_unpacks_to_too_much_is_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_MEMBER_BYTES >= 300_000_000
    monkeypatch.setattr("toolkit.experiments.runs.run_file.MAX_MEMBER_BYTES", 100)
    with pytest.raises(RecordError, match="unpacks to"):
        Run.load(saved)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_bytes_changed_is_read_or_refused(
    saved: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(saved.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.zip"
    path.write_bytes(content)
    with suppress(RecordError):
        Run.load(path)


def test_saving_replaces_a_file_whole(run: Run, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    shutil.copy(saved, path)
    run.save(path)
    assert [found.name for found in tmp_path.iterdir()] == ["run.zip"]
    with pytest.raises(FileNotFoundError):
        Run.load(tmp_path / "none.zip")
