"""Find out who will show what a cell returns."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["can_show_widgets"]


def can_show_widgets() -> bool:
    """Whether somebody sits at the other end who can click.

    Whoever runs a notebook unattended (nbconvert, nbclient, papermill) says that it cannot answer
    questions. It would save a widget's state, and HTML made from that needs the network to draw it;
    so there a widget is what it falls back to.
    """
    kernel = _kernel()
    return kernel is None or bool(getattr(kernel, "_allow_stdin", True))


def _kernel() -> Any:
    """The kernel of this process, if it is one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None)
