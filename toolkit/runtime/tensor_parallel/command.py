"""The command line that starts another process with this one's toolkit, whatever lies about."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["python_command"]

_OWN_FILE = os.path.realpath(Path(__file__).parents[2] / "__init__.py")  # toolkit.__file__

_CODE = """\
import os, sys
sys.path[:] = {places!r}
import toolkit
found = os.path.realpath(toolkit.__file__)
if found != {file!r}:
    sys.exit("this process found the toolkit at " + found + ", the one that started it runs " +
             {file!r} + ": put the folder of that first on sys.path")
from toolkit.runtime.tensor_parallel.worker import main
main()
"""


def python_command(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a worker, which imports from where this process does.

    ``python -m`` would look into the current folder first, and not where a script or a notebook
    has said on ``sys.path``. The standard library comes first: this process has imported what it
    needs of that already, and a random.py of the user's is not it.
    """
    library = os.path.dirname(os.__file__)
    standard = (library, os.path.join(library, "lib-dynload"))
    places = [place for place in sys.path if isinstance(place, str)]
    places.sort(key=lambda place: place not in standard)  # otherwise in their order
    code = _CODE.format(places=places, file=_OWN_FILE)
    return [sys.executable, "-c", code, *arguments]
