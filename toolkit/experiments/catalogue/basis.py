"""What an experiment's numbers rest on besides size and seed: this code, and the traces at hand."""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

__all__ = ["TRACES_VARIABLE", "basis"]

TRACES_VARIABLE = "TOOLKIT_TRACES"  # names the folder in which published traces lie


def basis() -> dict[str, str]:
    """Return a digest of the toolkit's Python sources, and one of the folder of traces.

    A result that was kept under another basis may be another one today.
    """
    return {"sources": _sources(), "traces": _traces()}


@cache  # the code that is loaded stays what it was
def _sources() -> str:
    folder = Path(__file__).parents[2]
    digest = sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _traces() -> str:
    """Return a digest of the files' names, sizes and times; "" without a folder."""
    folder = Path(os.environ.get(TRACES_VARIABLE, ""))
    if folder == Path() or not folder.is_dir():
        return ""
    facts = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    return sha256(repr((str(folder.resolve()), facts)).encode()).hexdigest()
