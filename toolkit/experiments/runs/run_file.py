"""One file for a run: a zip of CSV, npz and JSON, without pickle, so that reading runs no code.

run.json        version, what was asked, settings, environment, saturation, notes, is_interrupted
requests.csv    a row per request; cells of tags are JSON
tokens.npz      when tokens came
workload.csv    the requests as they were asked, to ask them again
record.zip      the engine's record, where it was ours

A file may come from anybody: what it holds is checked, and none of its members may unpack to more
than ``MAX_MEMBER_BYTES``.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig, RecordError
from toolkit.experiments.runs.results import REQUEST_COLUMNS, Run
from toolkit.experiments.runs.saturation import MAX_LAG_S, Saturation
from toolkit.experiments.workloads.workload import Workload
from toolkit.files import ready_to_write
from toolkit.record import Record
from toolkit.record.archive import member, plain, require_small

__all__ = ["MAX_MEMBER_BYTES", "load_run", "save_run"]

_FORMAT = "toolkit-run"
_VERSION = 1
_COMPRESSION_LEVEL = 1
# A million requests take 300 MB of CSV.
MAX_MEMBER_BYTES = 1_000_000_000
_HEADER_TYPES = {
    "workload_description": dict,
    "environment": dict,
    "settings": dict,
    "notes": list,
}
_TOKEN_KINDS = {"arrival_id": "int64", "index": "int64", "time_s": "float64"}


def save_run(run: Run, path: Path) -> Path:
    """Write a file, whole or not at all; see ``Run.save``."""
    path = ready_to_write(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        partial = Path(folder) / "run"
        with zipfile.ZipFile(
            partial, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL
        ) as archive:
            archive.writestr("run.json", json.dumps(_header(run), indent=1, default=plain))
            archive.writestr("requests.csv", _csv(run.requests))
            archive.writestr("tokens.npz", _npz(run.tokens))
            workload = Path(folder) / "workload.csv"
            if _wrote(run.workload, workload):
                archive.write(workload, "workload.csv")
            if run.record is not None:
                record = run.record.save(Path(folder) / "record.zip")
                archive.write(record, "record.zip", zipfile.ZIP_STORED)
        os.replace(partial, path)
    return path


def load_run(path: Path) -> Run:
    """Read a file; see ``Run.load``."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read(archive, path)
        except RecordError:
            raise
        except Exception as error:  # zipfile, numpy, pandas and json each have several for damage
            raise RecordError(f"{path} is no run, or is damaged: {error!r:.300}") from error


# ---- writing


def _header(run: Run) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        **{name: getattr(run, name) for name in _HEADER_TYPES},
        "saturation": None if run.saturation is None else asdict(run.saturation),
        "is_interrupted": run.is_interrupted,
    }


def _csv(requests: pd.DataFrame) -> str:
    table = requests.copy()
    for name in table:
        if name not in REQUEST_COLUMNS:
            table[name] = [json.dumps(value, default=plain) for value in table[name]]
    text: str = table.to_csv(index=False)
    return text


def _npz(tokens: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: tokens[name].to_numpy(kind) for name, kind in _TOKEN_KINDS.items()})
    return buffer.getvalue()


def _wrote(workload: Workload | None, path: Path) -> bool:
    """Write the workload, if there is one and a file can say what it is."""
    if workload is None:
        return False
    try:
        workload.to_csv(path)
    except InvalidConfig:
        return False
    return True


# ---- reading


def _read(archive: zipfile.ZipFile, path: Path) -> Run:
    header = json.loads(_member(archive, "run.json"))
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise RecordError(f"{path} is no run: its run.json says nothing of one")
    if header["version"] > _VERSION:
        raise RecordError(
            f"{path} was written by a newer version (format {header['version']}; this one reads "
            f"up to {_VERSION}): update the toolkit"
        )
    for name, kind in _HEADER_TYPES.items():
        if not isinstance(header.get(name), kind):
            raise ValueError(f"{name}={header.get(name)!r:.80} in its run.json")
    for part, name in (("settings", "on"), ("environment", "url")):
        if not isinstance(header[part].get(name), str | None):
            raise ValueError(f"{part}: {name}={header[part][name]!r:.80} in its run.json")
    requests = _requests(_member(archive, "requests.csv"))
    if not requests["arrival_id"].is_unique:
        raise ValueError("requests.csv has several rows of one arrival_id")
    tokens = _tokens(_member(archive, "tokens.npz"))
    if not set(tokens["arrival_id"].unique()) <= set(requests["arrival_id"]):
        raise ValueError("tokens of requests that are not there")
    return Run(
        requests=requests,
        tokens=tokens,
        record=_record(archive),
        saturation=_saturation(header["saturation"]),
        workload=_workload(archive),
        is_interrupted=_is_interrupted(header),
        **{name: header[name] for name in _HEADER_TYPES},
    )


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    return member(archive, name, what="run", most_bytes=MAX_MEMBER_BYTES)


def _requests(content: bytes) -> pd.DataFrame:
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    missing = [name for name in REQUEST_COLUMNS if name not in table]
    if missing:
        raise ValueError(f"requests.csv has no column {', '.join(missing)}")
    columns: dict[str, Any] = {}
    for name in table:
        cells = table[name].tolist()
        if name in REQUEST_COLUMNS:
            columns[name] = _parsed(cells, REQUEST_COLUMNS[name])
        elif name.startswith("tags."):
            columns[name] = pd.Series([json.loads(cell) for cell in cells], dtype=object)
        else:
            raise ValueError(f"requests.csv has a column {name:.80}")
    return pd.DataFrame(columns)


def _parsed(cells: list[str], kind: str) -> Any:
    """Return cells as a column of a kind; an empty one is nothing."""
    if kind == "object":
        return pd.Series([cell or None for cell in cells], dtype=object)
    if kind == "Int64":
        return pd.array([int(cell) if cell else None for cell in cells], dtype="Int64")
    if kind == "int64":
        return np.array([int(cell) for cell in cells], dtype="int64")
    return np.array([float(cell or "nan") for cell in cells])  # each bit as it was


def _tokens(content: bytes) -> pd.DataFrame:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        require_small(arrays, "tokens", most_bytes=MAX_MEMBER_BYTES)
        columns = {}
        for name, kind in _TOKEN_KINDS.items():
            columns[name] = arrays[name]
            if columns[name].ndim != 1 or columns[name].dtype != np.dtype(kind):
                raise ValueError(f"tokens: {name} is {columns[name].dtype}")
    return pd.DataFrame(columns)  # which refuses columns of unlike lengths


def _saturation(values: Any) -> Saturation | None:
    if values is None:
        return None
    if isinstance(values, dict):
        values = {"allowed_lag_s": MAX_LAG_S, **values}  # files of before did not say
    if set(values) != {each.name for each in fields(Saturation)}:
        raise ValueError(f"saturation={values!r:.80} in its run.json")
    if not all(isinstance(value, int | float) for value in values.values()):
        raise ValueError(f"saturation={values!r:.80} in its run.json")
    return Saturation(**values)


def _is_interrupted(header: dict[str, Any]) -> bool:
    told = header.get("is_interrupted", False)  # files of before did not say
    if not isinstance(told, bool):
        raise ValueError(f"is_interrupted={told!r:.80} in its run.json")
    return told


def _record(archive: zipfile.ZipFile) -> Record | None:
    content = _optional(archive, "record.zip")
    if content is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.zip"
        path.write_bytes(content)
        return Record.load(path)


def _workload(archive: zipfile.ZipFile) -> Workload | None:
    content = _optional(archive, "workload.csv")
    if content is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "workload.csv"
        path.write_bytes(content)
        return Workload.from_trace(path, format="toolkit")


def _optional(archive: zipfile.ZipFile, name: str) -> bytes | None:
    return _member(archive, name) if name in archive.namelist() else None
