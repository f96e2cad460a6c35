"""One file for a record: a zip of JSON and npz, without pickle, so that reading runs no code.

record.json     version, configuration, environment, the texts of the tokens
{table}.npz     the table's columns; text as numbers of distinct strings, and those as UTF-8
facts.jsonl     what the sampler did, a token a line
journal.json    what the engine needs to replay the run

A file may come from anybody: what it holds is checked, and none of its members may unpack to more
than ``MAX_MEMBER_BYTES``.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import RecordError
from toolkit.files import ready_to_write
from toolkit.record.archive import member, plain, require_small
from toolkit.record.layout import LEVELS, TABLE_KINDS
from toolkit.record.log import NAME, OBJECT, Codes, Rows

__all__ = ["MAX_MEMBER_BYTES", "VERSION", "Saved", "load_record", "save_record"]

FORMAT = "toolkit-record"
VERSION = 1
# Fast: a record of 200,000 tokens is read in well under a second.
_COMPRESSION_LEVEL = 1
# The largest table that a record keeps takes 224 MB (`layout.MAX_ROWS`), its facts less.
MAX_MEMBER_BYTES = 256_000_000
# What the header must have, and of which type.
_HEADER_TYPES: dict[str, tuple[type, ...]] = {
    "started_at": (str,),
    "level": (str,),
    "name": (str,),
    "config": (dict,),
    "environment": (dict,),
    "num_dropped": (dict,),
    "blocks_since": (int, type(None)),
    "token_texts": (dict,),
}
# Values that are no text: kept as JSON, each distinct one once.
_JSON_COLUMNS = frozenset(("tags", "priority", "seed"))


@dataclass(frozen=True, slots=True)
class Saved:
    """What is in such a file."""

    header: dict[str, Any]
    tables: dict[str, Rows]
    facts: list[tuple[str, int, str]] = field(default_factory=list)  # request, position, JSON
    journal: Any = None


def save_record(path: Path, saved: Saved) -> Path:
    """Write a file, whole or not at all; see ``Record.save``."""
    path = ready_to_write(path)
    header = {"format": FORMAT, "version": VERSION, **saved.header}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with (
            os.fdopen(handle, "wb") as file,
            zipfile.ZipFile(
                file, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL
            ) as archive,
        ):
            archive.writestr("record.json", _json(header))
            for table, rows in saved.tables.items():
                archive.writestr(f"{table}.npz", _npz(table, rows))
            archive.writestr("facts.jsonl", "\n".join(_fact_lines(saved.facts)))
            archive.writestr("journal.json", _json(saved.journal))
        os.chmod(name, 0o644 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def load_record(path: Path) -> Saved:
    """Read a file.

    Raises:
        FileNotFoundError: there is none.
        RecordError: it is something else, is damaged, or was written by a newer version.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read(archive, path)
        except RecordError:
            raise
        except Exception as error:  # zipfile, numpy and json each have several for damage
            raise RecordError(f"{path} is no record, or is damaged: {error!r}") from error


def _read(archive: zipfile.ZipFile, path: Path) -> Saved:
    header = json.loads(_member(archive, "record.json"))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        form = header.get("format") if isinstance(header, dict) else header
        raise RecordError(f"{path} is no record: format={form!r:.80}")
    if header["version"] > VERSION:
        raise RecordError(
            f"{path} was written by a newer version (format {header['version']}; this one reads "
            f"up to {VERSION}): update the toolkit"
        )
    _check_header(header)
    facts = []
    for line in _member(archive, "facts.jsonl").decode().splitlines():
        request_id, position, text = json.loads(line)
        if not isinstance(json.loads(text), dict):
            raise ValueError(f"the facts of {request_id!r:.80} are no object")
        facts.append((str(request_id), int(position), str(text)))
    journal = json.loads(_member(archive, "journal.json"))
    if not isinstance(journal, dict | None):
        raise ValueError(f"its journal is a {type(journal).__name__}, no object")
    return Saved(
        header=header,
        tables={table: _rows(table, _member(archive, f"{table}.npz")) for table in TABLE_KINDS},
        facts=facts,
        journal=journal,
    )


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    return member(archive, name, what="record", most_bytes=MAX_MEMBER_BYTES)


def _check_header(header: dict[str, Any]) -> None:
    """Raise ValueError where an entry is missing or of another type."""
    for name, kinds in _HEADER_TYPES.items():
        if name not in header or not isinstance(header[name], kinds):
            raise ValueError(f"{name}={header.get(name)!r:.80} in its record.json")
    datetime.fromisoformat(header["started_at"])
    if header["level"] not in LEVELS:
        raise ValueError(f"level={header['level']!r:.80} in its record.json")
    counts = header["num_dropped"]
    if not all(isinstance(counts.get(table), int) for table in TABLE_KINDS):
        raise ValueError(f"num_dropped={counts!r:.80} in its record.json")
    for token_id, text in header["token_texts"].items():
        int(token_id)
        if not isinstance(text, str | None):
            raise ValueError(f"token_texts: {text!r:.80} in its record.json")
    for name in ("num_blocks", "block_size"):
        if not isinstance(header["config"].get(name), int | None):
            raise ValueError(f"{name}={header['config'][name]!r:.80} in its record.json")


def _fact_lines(facts: list[tuple[str, int, str]]) -> Iterator[str]:
    for fact in facts:
        yield json.dumps(fact)


def _json(value: Any) -> str:
    return json.dumps(value, default=plain)


def _npz(table: str, rows: Rows) -> bytes:
    arrays: dict[str, Any] = {}
    for name, kind in TABLE_KINDS[table].items():
        if kind not in (NAME, OBJECT):
            arrays[name] = rows[name]
            continue
        values = rows[name].tolist()
        if name in _JSON_COLUMNS:
            values = [None if value is None else _json(value) for value in values]
        codes = Codes()
        arrays[name] = np.fromiter(map(codes.__getitem__, values), np.int32, len(values))
        texts = [text.encode("utf-8", "surrogatepass") for text in codes if text is not None]
        arrays[f"{name}.sizes"] = np.array([len(text) for text in texts], np.int64)
        arrays[f"{name}.bytes"] = np.frombuffer(b"".join(texts), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _rows(table: str, content: bytes) -> Rows:
    rows: Rows = {}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        require_small(arrays, table, most_bytes=MAX_MEMBER_BYTES)
        for name, kind in TABLE_KINDS[table].items():
            is_coded = kind in (NAME, OBJECT)
            values = _column(arrays, name, np.int32 if is_coded else kind)
            if is_coded:
                sizes = _column(arrays, f"{name}.sizes", np.int64)
                texts: list[Any] = _texts(sizes, _column(arrays, f"{name}.bytes", np.uint8))
                if len(values) and not -1 <= values.min() <= values.max() < len(texts):
                    raise ValueError(f"{table}.{name} names texts that are not there")
                if name in _JSON_COLUMNS:
                    texts = [json.loads(text) for text in texts]
                distinct = np.fromiter([*texts, None], object, len(texts) + 1)
                values = distinct[values]  # -1 is the last one: None
            rows[name] = values
    if len({len(values) for values in rows.values()}) > 1:
        raise ValueError(f"columns of {table} differ in length")
    return rows


def _column(arrays: Any, name: str, dtype: Any) -> np.ndarray:
    values: np.ndarray = arrays[name]
    if values.ndim != 1 or values.dtype != np.dtype(dtype):
        raise ValueError(f"{name} is {values.dtype} of {values.ndim} dimensions")
    return values


def _texts(sizes: np.ndarray, coded: np.ndarray) -> list[Any]:
    if (len(sizes) and sizes.min() < 0) or sizes.sum() != len(coded):
        raise ValueError("texts and their lengths do not agree")
    joined, texts, start = coded.tobytes(), [], 0
    for size in sizes.tolist():
        texts.append(joined[start : start + size].decode("utf-8", "surrogatepass"))
        start += size
    return texts


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
