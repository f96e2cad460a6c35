"""One file for a record: a zip of JSON and npz, without pickle, so that reading runs no code.

record.json     version, configuration, environment, the texts of the tokens
{table}.npz     the table's columns; text as numbers of distinct strings, and those as UTF-8
facts.jsonl     what the sampler did, a token a line
journal.json    what the engine needs to replay the run
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import RecordError
from toolkit.record.layout import TABLE_KINDS
from toolkit.record.log import NAME, OBJECT, Codes, Rows

__all__ = ["VERSION", "Saved", "load_record", "save_record"]

FORMAT = "toolkit-record"
VERSION = 1
# Fast: a record of 200,000 tokens is read in well under a second.
_COMPRESSION_LEVEL = 1
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
    """Write a file, whole or not at all; one that is there already is replaced."""
    header = {"format": FORMAT, "version": VERSION, **saved.header}
    handle, name = tempfile.mkstemp(dir=path.parent or None, prefix=f".{path.name}.")
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
    header = json.loads(archive.read("record.json"))
    if header.get("format") != FORMAT:
        raise RecordError(f"{path} is no record: format={header.get('format')!r}")
    if header["version"] > VERSION:
        raise RecordError(
            f"{path} was written by a newer version (format {header['version']}; this one reads "
            f"up to {VERSION}): update the toolkit"
        )
    facts = []
    for line in archive.read("facts.jsonl").decode().splitlines():
        request_id, position, text = json.loads(line)
        facts.append((str(request_id), int(position), str(text)))
    return Saved(
        header=header,
        tables={table: _rows(table, archive.read(f"{table}.npz")) for table in TABLE_KINDS},
        facts=facts,
        journal=json.loads(archive.read("journal.json")),
    )


def _fact_lines(facts: list[tuple[str, int, str]]) -> Iterator[str]:
    for fact in facts:
        yield json.dumps(fact)


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """Return what JSON does not know as a number, or as its repr."""
    return value.item() if isinstance(value, np.generic) else repr(value)


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
        for name, kind in TABLE_KINDS[table].items():
            values = arrays[name]
            if kind in (NAME, OBJECT):
                texts = _texts(arrays[f"{name}.sizes"], arrays[f"{name}.bytes"].tobytes())
                if name in _JSON_COLUMNS:
                    texts = [json.loads(text) for text in texts]
                distinct = np.fromiter([*texts, None], object, len(texts) + 1)
                values = distinct[values]  # -1 is the last one: None
            rows[name] = values
    if len({len(values) for values in rows.values()}) > 1:
        raise ValueError(f"columns of {table} differ in length")
    return rows


def _texts(sizes: np.ndarray, joined: bytes) -> list[Any]:
    texts, start = [], 0
    for size in sizes.tolist():
        texts.append(joined[start : start + size].decode("utf-8", "surrogatepass"))
        start += size
    return texts


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
