"""Figures of experiments: ``paper`` sets their style, the others draw tables of results."""

from toolkit.experiments.curves import curve_table, knee, latency_curves
from toolkit.experiments.figure_style import (
    COLOURS,
    PAPER_COLOUR,
    DataFigure,
    Look,
    figure,
    look,
    paper,
    plain_ticks,
    style,
)

__all__ = [
    "COLOURS",
    "PAPER_COLOUR",
    "DataFigure",
    "Look",
    "curve_table",
    "figure",
    "knee",
    "latency_curves",
    "look",
    "paper",
    "plain_ticks",
    "style",
]
