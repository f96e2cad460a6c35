"""How figures of experiments look.

A figure belongs to no window, shows itself in a notebook, and carries what it draws in ``.data``.
Colours are those of Okabe and Ito, which people with any colour vision tell apart; every line has a
marker and a dash of its own as well, so that a copy in black and white still reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import Any, NamedTuple

import pandas as pd

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.rcsetup import cycler
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
except ImportError as error:
    raise ImportError(
        "figures need matplotlib: pip install 'llm-serving-toolkit[notebook]'"
    ) from error

__all__ = [
    "COLOURS",
    "PAPER_COLOUR",
    "DataFigure",
    "Look",
    "figure",
    "look",
    "paper",
    "plain_ticks",
    "style",
]

# Okabe and Ito, "Color Universal Design" (2008); yellow is left out: too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "os^Dv<>"
_DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (5, 1)), ":")
# What a paper says, drawn over what was measured here.
PAPER_COLOUR = "#404040"
# Which numbers of each decade are labelled, on an axis of up to so many decades.
_TICKS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0.4, (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)),
    (0.8, (1, 1.5, 2, 3, 4, 5, 6, 8)),
    (1.5, (1, 2, 3, 5)),
    (2.5, (1, 2, 5)),
    (math.inf, (1,)),
)
_NARROW_IN = 4.5
_GOLDEN = 0.62
_DPI = 160


class Look(NamedTuple):
    """How one of several lines is drawn; give it to ``axes.plot(..., **look(i)._asdict())``."""

    color: str
    marker: str
    linestyle: Any


def look(index: int) -> Look:
    """Return the look of the line of that number, counted from 0."""
    place = index % len(COLOURS)
    return Look(COLOURS[place], _MARKERS[place], _DASHES[place])


class DataFigure(Figure):
    """A matplotlib figure with the table that it draws, ``data``; a notebook shows it as a PNG."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.data = pd.DataFrame()

    def to_png(self, dpi: float = _DPI) -> bytes:
        """Return the picture, cut to what is drawn."""
        file = BytesIO()
        self.savefig(file, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.04)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.to_png()


def figure(*, height_in: float | None = None, width_in: float | None = None) -> DataFigure:
    """Return an empty figure of the width in force (``paper`` sets it), to be drawn in ``style``.

    >>> with style():
    ...     fig = figure()
    ...     axes = fig.subplots()
    """
    width_in = matplotlib.rcParams["figure.figsize"][0] if width_in is None else width_in
    height_in = width_in * _GOLDEN if height_in is None else height_in
    return DataFigure(figsize=(width_in, height_in), layout="constrained")


def paper(width_in: float = 3.3) -> ExitStack:
    """Set the style and the width of figures: 3.3 in is a column of a paper, 7 in both of them.

    It holds from now on for all of matplotlib; used in a ``with`` statement, until its end.
    """
    settings = _settings(width_in)
    before = {name: matplotlib.rcParams[name] for name in settings}
    matplotlib.rcParams.update(settings)
    undo = ExitStack()
    undo.callback(matplotlib.rcParams.update, before)
    return undo


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the toolkit's figures, at the width in force, and leave no trace."""
    with matplotlib.rc_context(_settings(matplotlib.rcParams["figure.figsize"][0])):
        yield


def plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers; the less it spans, the more of each decade."""
    low, high = axis.get_view_interval()
    num_decades = math.log10(high / low)
    at = next(numbers for most, numbers in _TICKS if num_decades <= most)
    axis.set_major_locator(LogLocator(subs=at, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_formatter(NullFormatter())


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1_000 else f"{number:g}"


def _settings(width_in: float) -> dict[str, Any]:
    """Return matplotlib's settings for figures of one width; text in points, lines too."""
    size = 7.5 if width_in < _NARROW_IN else 9.0
    return {
        "figure.figsize": (width_in, width_in * _GOLDEN),
        "figure.dpi": _DPI,
        "savefig.dpi": 300,
        "savefig.bbox": "tight",
        "pdf.fonttype": 42,  # text stays text in a PDF, as publishers ask
        "ps.fonttype": 42,
        "font.size": size,
        "axes.titlesize": size + 0.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": size,
        "xtick.labelsize": size - 0.5,
        "ytick.labelsize": size - 0.5,
        "legend.fontsize": size - 0.5,
        "legend.frameon": False,
        "legend.handlelength": 2.2,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#d9d9d9",
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.4,
        "lines.markersize": 3.6 if width_in < _NARROW_IN else 4.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
    }
