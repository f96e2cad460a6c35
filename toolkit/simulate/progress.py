"""A progress bar for what takes long, where somebody looks on."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

__all__ = ["progress_bar"]

_DELAY_S = 2.0  # a run shorter than this needs no bar


def progress_bar(total: int | None, what: str, *, unit: str, progress: bool | None) -> tqdm[Any]:
    """Return a bar of ``total`` units, None if nobody knows how many.

    Args:
        total: Units in all.
        what: Stands before the bar.
        unit: What is counted, in the singular.
        progress: Whether to show it; None shows it once it takes long, in a terminal or notebook.
    """
    is_hidden = not _is_interactive() if progress is None else not progress
    delay_s = _DELAY_S if progress is None else 0.0
    return tqdm(total=total, desc=what, unit=unit, disable=is_hidden, delay=delay_s)


def _is_interactive() -> bool:
    return "ipykernel" in sys.modules or sys.stderr.isatty()
