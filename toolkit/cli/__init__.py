"""The command line: ``toolkit generate | chat | serve | bench | experiment | report | doctor``.

torch and the model are imported inside the commands that need them, so that ``toolkit --help``
answers at once.
"""

from toolkit.cli.app import app, main

__all__ = ["app", "main"]
