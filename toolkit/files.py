"""Where a file is and is to be written: one rule for whatever the toolkit saves and loads."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from toolkit.errors import InvalidConfig

__all__ = ["from_home", "ready_to_write"]


def from_home(path: str | PathLike[str]) -> Path:
    """Return a path with the home folder in place of a ``~`` at its start, as a shell does."""
    return Path(os.path.expanduser(path))


def ready_to_write(path: str | PathLike[str]) -> Path:
    """Make the folders that a file is to lie in, and return its path, from home if it says ``~``.

    Raises:
        InvalidConfig: the path is that of a folder, or its folder cannot be made.
    """
    path = from_home(path)
    try:
        is_folder = path.is_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfig(
            f"{path} cannot be written, for {_obstacle(path, error)}: choose another place"
        ) from error
    if is_folder:
        raise InvalidConfig(f"{path} is a folder: give the name of a file in it")
    return path


def _obstacle(path: Path, error: OSError) -> str:
    """Say what is where a folder would have to be."""
    if not isinstance(error, (FileExistsError, NotADirectoryError)):
        return (error.strerror or str(error)).lower()
    place = next(place for place in path.parents if os.path.lexists(place))
    if place.exists():
        return f"{place} is a file and no folder"
    return f"{place} is a link to {os.readlink(place)}, which is not there"
