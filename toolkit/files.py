"""Where a file is to be written: one rule for whatever the toolkit saves."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from toolkit.errors import InvalidConfig

__all__ = ["ready_to_write"]


def ready_to_write(path: str | PathLike[str]) -> Path:
    """Make the folders that a file is to lie in, and return its path.

    Raises:
        InvalidConfig: the path is that of a folder, or a file is where a folder would have to be.
    """
    path = Path(path)
    if path.is_dir():
        raise InvalidConfig(f"{path} is a folder: give the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(place for place in path.parents if place.exists())
        raise InvalidConfig(
            f"{path} cannot be written, for {file} is a file and no folder: choose another place"
        ) from error
    return path
