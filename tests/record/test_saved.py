"""A record in a file: equal when it is read again, refused when it is something else."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import make_engine, params
from toolkit.errors import RecordError
from toolkit.record import Record
from toolkit.record.saved import VERSION

TEXTS = st.text(max_size=8)
TAGS = st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(), st.booleans(), st.none()), max_size=3)


def run(tags: list[dict] | None = None) -> Record:
    engine = make_engine(recorder=Record(level="blocks", token_text=chr), num_blocks=8)
    for i, own in enumerate(tags or [{}, {"tenant": "a"}, {}]):
        engine.add([1, 2, 3, 4, 5, i], params(5, seed=-i if i else None), tags=own)
    engine.run_until_idle()
    record: Record = engine.record
    return record


def check_equal(a: Record, b: Record) -> None:
    for table in a.tables:
        pd.testing.assert_frame_equal(getattr(a, table), getattr(b, table))


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(TAGS, min_size=1, max_size=4))
def test_what_is_read_equals_what_was_saved(tmp_path_factory: pytest.TempPathFactory, tags: list):
    record = run(tags)
    record._facts.put("req-0", 7, {"kept": 3, "name": "\ud800"})
    path = record.save(tmp_path_factory.mktemp("records") / "run.zip")
    loaded = Record.load(path)
    check_equal(record, loaded)
    assert loaded.facts("req-0", 7) == record.facts("req-0", 7)
    assert loaded.config == record.config
    assert loaded.environment == record.environment
    assert loaded.started_at == record.started_at
    assert loaded.level == "blocks"
    assert not loaded.is_live
    pd.testing.assert_frame_equal(loaded.blocks_at(3), record.blocks_at(3))
    again = Record.load(loaded.save(path))  # over itself
    check_equal(loaded, again)


def test_the_journal_comes_back_as_it_was(tmp_path: Path):
    class Journal:
        def to_json(self) -> dict:
            return {"inputs": [1, 2]}

    record = run()
    record.journal = Journal()
    loaded = Record.load(record.save(tmp_path / "run.zip"))
    assert loaded.journal == {"inputs": [1, 2]}
    assert Record.load(loaded.save(tmp_path / "two.zip")).journal == {"inputs": [1, 2]}


def test_a_live_run_can_be_saved_in_the_middle(tmp_path: Path):
    engine = make_engine(recorder=Record(level="blocks"))
    engine.add([1, 2, 3], params(5))
    engine.step()
    frozen = engine.record.freeze()
    check_equal(frozen, Record.load(engine.record.save(tmp_path / "run.zip")))


def test_a_file_that_is_no_record_is_refused(tmp_path: Path):
    path = tmp_path / "other"
    path.write_text("time,tokens")
    with pytest.raises(RecordError, match="no record, or is damaged"):
        Record.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("record.json", json.dumps({"format": "something else"}))
    with pytest.raises(RecordError, match="something else"):
        Record.load(path)
    with pytest.raises(FileNotFoundError):
        Record.load(tmp_path / "missing")


def test_a_file_of_a_newer_version_says_so(tmp_path: Path):
    path = run().save(tmp_path / "run.zip")
    newer = tmp_path / "newer.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(newer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "record.json":
                content = json.dumps({**json.loads(content), "version": VERSION + 1}).encode()
            new.writestr(name, content)
    with pytest.raises(RecordError, match="newer version"):
        Record.load(newer)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 255))
@settings(max_examples=60)
def test_a_damaged_file_is_refused_or_read_whole(
    tmp_path_factory: pytest.TempPathFactory, share: float, flip: int
):
    record = run()
    path = record.save(tmp_path_factory.mktemp("damaged") / "run.zip")
    content = bytearray(path.read_bytes())
    place = int(share * len(content))
    if flip:
        content[place] ^= flip
    else:
        del content[place:]
    path.write_bytes(content)
    try:
        loaded = Record.load(path)
    except RecordError:
        return
    check_equal(record, loaded)  # the damage was where nothing is read


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = run()
    path = record.save(tmp_path / "run.zip")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="no space"):
        record.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_two_thousand_requests_are_read_in_moments(tmp_path: Path):
    engine = make_engine(
        recorder=Record(),
        num_blocks=4096,
        block_size=16,
        max_num_seqs=256,
        max_num_batched_tokens=2048,
        max_model_len=256,
    )
    object.__setattr__(engine.config, "check_every_step", False)
    for i in range(2_000):
        engine.add([i % 50] * 16, params(100))
    engine.run_until_idle()
    path = engine.record.save(tmp_path / "run.zip")
    start_s = time.process_time()
    loaded = Record.load(path)
    took_s = time.process_time() - start_s
    assert loaded.num_rows("tokens") == 200_000
    assert took_s < 3.0  # of the processor; a fraction of a second where nothing else runs
