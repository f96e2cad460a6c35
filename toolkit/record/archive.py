"""What files of records and of runs have in common: zips that may come from anybody."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np

from toolkit.errors import RecordError

__all__ = ["member", "plain", "require_small"]


def member(archive: zipfile.ZipFile, name: str, *, what: str, most_bytes: int) -> bytes:
    """Return what a member holds.

    Args:
        archive: Open for reading.
        name: Of the member.
        what: The archive should be, in a word: "record", "run".
        most_bytes: That it may unpack to.

    Raises:
        KeyError: there is no such member.
        RecordError: it would unpack to more.
    """
    size = archive.getinfo(name).file_size
    if size > most_bytes:
        raise RecordError(
            f"{archive.filename} is no {what}, or a harmful one: its {name} unpacks to {size:,} "
            f"bytes, and no {what} holds more than {most_bytes:,}"
        )
    with archive.open(name) as file:
        return file.read(size)  # with a size, for the one that is declared may be a lie


def require_small(arrays: Any, what: str, *, most_bytes: int) -> None:
    """Raise ValueError for an ``NpzFile``, which is packed once more, that unpacks to too much."""
    size = sum(each.file_size for each in arrays.zip.infolist())
    if size > most_bytes:
        raise ValueError(f"{what} unpacks to {size:,} bytes")


def plain(value: Any) -> Any:
    """Return what JSON does not know as a number, or as its repr."""
    return value.item() if isinstance(value, np.generic) else repr(value)
