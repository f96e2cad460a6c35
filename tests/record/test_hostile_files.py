"""A file from anybody: what is missing, of another type or too large is refused with a sentence."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import make_engine, params
from toolkit.errors import EngineError, RecordError
from toolkit.record import Record, saved
from toolkit.simulate import engine_at, replay


@pytest.fixture
def path(tmp_path: Path) -> Path:
    engine = make_engine(recorder=Record(level="blocks", token_text=chr))
    engine.add([1, 2, 3], params(4), tags={"tenant": "a"})
    engine.run_until_idle()
    where: Path = engine.record.save(tmp_path / "run.rec")
    return where


def change(path: Path, name: str, make: Callable[[bytes], bytes | None]) -> Path:
    """Write the file anew with one member changed; None leaves it out."""
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    content = make(members.pop(name))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, old in members.items():
            archive.writestr(each, old)
        if content is not None:
            archive.writestr(name, content)
    return path


def with_entry(name: str, value: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), name: value}).encode()


def without_entry(name: str) -> Callable[[bytes], bytes]:
    def make(content: bytes) -> bytes:
        header = json.loads(content)
        del header[name]
        return json.dumps(header).encode()

    return make


def with_column(name: str, column: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    def make(content: bytes) -> bytes:
        arrays = dict(np.load(io.BytesIO(content)))
        arrays[name] = column(arrays[name])
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    return make


ENTRIES = ("started_at", "level", "name", "config", "environment", "num_dropped", "blocks_since")


@pytest.mark.parametrize("entry", [*ENTRIES, "token_texts", "version"])
def test_a_header_without_an_entry_is_refused(path: Path, entry: str) -> None:
    with pytest.raises(RecordError, match="damaged"):
        Record.load(change(path, "record.json", without_entry(entry)))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("level", "everything"),
        ("config", None),
        ("config", {"num_blocks": "many"}),
        ("environment", [1]),
        ("started_at", "yesterday"),
        ("num_dropped", {"steps": 0}),
        ("blocks_since", "0"),
        ("token_texts", {"a": "b"}),
        ("token_texts", {"1": 2}),
        ("version", "1"),
    ],
)
def test_a_header_of_other_values_is_refused(path: Path, entry: str, value: Any) -> None:
    with pytest.raises(RecordError, match="damaged"):
        Record.load(change(path, "record.json", with_entry(entry, value)))


@pytest.mark.parametrize(
    ("table", "name", "column"),
    [
        ("steps", "step", lambda values: values.astype(np.float64)),
        ("steps", "start_s", lambda values: values[:, None]),
        ("steps", "policy", lambda values: values + 1),
        ("steps", "policy", lambda values: values - 2),
        ("steps", "policy.sizes", lambda values: -values),
        ("steps", "policy.sizes", lambda values: values + 1),
        ("tokens", "token_id", lambda values: values[1:]),
        ("requests", "tags.bytes", lambda values: values.astype(np.int64)),
    ],
)
def test_columns_of_another_type_or_shape_are_refused(
    path: Path, table: str, name: str, column: Callable[[np.ndarray], np.ndarray]
) -> None:
    with pytest.raises(RecordError, match="damaged"):
        Record.load(change(path, f"{table}.npz", with_column(name, column)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("record.json", b"[]"),
        ("journal.json", b"[1, 2]"),
        ("facts.jsonl", b'["req-0", 3, "[]"]'),
        ("facts.jsonl", b'["req-0", 3]'),
        ("blocks.npz", b"nothing"),
        ("blocks.npz", None),
    ],
)
def test_a_member_that_is_something_else_is_refused(
    path: Path, name: str, content: bytes | None
) -> None:
    with pytest.raises(RecordError, match="no record"):
        Record.load(change(path, name, lambda _: content))


def test_a_journal_of_junk_is_shown_but_not_played(path: Path) -> None:
    for junk in ({"entries": []}, {"version": 1, "base": 3}):
        record = Record.load(change(path, "journal.json", lambda _, j=junk: json.dumps(j).encode()))
        assert len(record.tokens) == 4
        for play in (
            lambda record=record: engine_at(record, 1),
            lambda record=record: replay(record),
        ):
            with pytest.raises(EngineError, match="journal"):
                play()


def test_a_member_that_unpacks_to_too_much_is_refused_before_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "MAX_MEMBER_BYTES", 1_000_000)
    assert len(Record.load(path).tokens) == 4
    change(path, "facts.jsonl", lambda _: b" " * 2_000_000)
    reads: list[str] = []
    read = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda *a, **k: reads.append(str(a[1])) or read(*a, **k)
    )
    with pytest.raises(RecordError, match=r"facts\.jsonl unpacks to 2,000,000 bytes"):
        Record.load(path)
    assert "facts.jsonl" not in reads


def test_a_table_that_is_packed_twice_is_measured_unpacked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "MAX_MEMBER_BYTES", 1_000_000)

    def pack(content: bytes) -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(np.load(io.BytesIO(content))), more=np.zeros(200_000))
        return buffer.getvalue()

    with pytest.raises(RecordError, match="steps unpacks to"):
        Record.load(change(path, "steps.npz", pack))


def test_a_member_whose_declared_size_is_a_lie_is_read_no_further(path: Path) -> None:
    change(path, "facts.jsonl", lambda _: b" " * 50_000_000)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 50_000_000), struct.pack("<I", 5)))
    tracemalloc.start()
    try:
        with pytest.raises(RecordError, match="damaged"):
            Record.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
