"""Latency against offered load: a line per policy, its band over seeds, its knee."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.experiments import figure_style

__all__ = ["curve_table", "knee", "latency_curves"]

# How far below the straight line between its ends a curve must sag to have a knee, as a share of
# the rise. A straight line has none.
_LEAST_SAG = 0.2
# How many times its lowest value it must come to: what rises gently has no knee.
_LEAST_RISE = 2.0

_NAMES = {
    "ttft_s": "time to first token",
    "tpot_s": "time per output token",
    "itl_s": "time between tokens",
    "e2e_s": "latency",
    "norm_latency_s": "latency per output token",
}


def latency_curves(
    df: pd.DataFrame,
    metric: str = "ttft_s",
    quantile: float | str = 0.99,
    *,
    by: str = "policy",
    title: str = "",
) -> figure_style.DataFigure:
    """Draw a metric (s, log) against offered load, from the table that ``sweep`` returns.

    Lines are geometric means over the seeds, bands reach from the lowest seed to the highest, and a
    ring marks the knee. The figure's ``.data`` is what ``curve_table`` returns.

    Args:
        df: A row per run, with columns rate, seed, ``by`` and the metric's.
        metric: As "ttft_s".
        quantile: 0.99 for its P99, or "mean".
        by: The column that makes the lines.
        title: Above the picture.

    Raises:
        InvalidConfig: the table lacks a column.
    """
    column, words = _column(df, metric, quantile, by)
    table = curve_table(df, column, by=by)
    with figure_style.style():
        fig = figure_style.figure()
        axes = fig.subplots()
        for place, (name, line) in enumerate(table.groupby(by, sort=False)):
            look = figure_style.look(place)
            axes.plot(line["rate"], line[column], label=str(name), zorder=3, **look._asdict())
            axes.fill_between(
                line["rate"], line["low"], line["high"], color=look.color, alpha=0.18, lw=0
            )
            bend = line[line["is_knee"]]
            axes.plot(
                bend["rate"], bend[column], "o", ms=9, mfc="none", mec=look.color, mew=1.1, zorder=4
            )
        axes.set_yscale("log")
        figure_style.plain_ticks(axes.yaxis)
        axes.set_xlabel("offered load (requests/s)")
        axes.set_ylabel(f"{words} (s)")
        if title:
            axes.set_title(title)
        handles, labels = axes.get_legend_handles_labels()
        if table["is_knee"].any():
            (ring,) = axes.plot(
                [], [], "o", ms=7, mfc="none", mec=figure_style.PAPER_COLOUR, mew=1.0
            )
            handles, labels = [*handles, ring], [*labels, "knee: turns up"]
        axes.legend(handles, labels)
    fig.data = table
    return fig


def curve_table(df: pd.DataFrame, column: str, *, by: str = "policy") -> pd.DataFrame:
    """Return a row per line and rate: by, rate, the geometric mean, low, high, num, is_knee.

    From ``low`` to ``high`` reach the values of the seeds, ``num`` of them.
    """
    rows: list[dict[str, Any]] = []
    for name, line in df.groupby(by, sort=False):
        points = [
            {by: name, "rate": rate, **_middle(group[column].to_numpy("float64"), column)}
            for rate, group in line.groupby("rate", sort=True)
        ]
        bend = knee([point["rate"] for point in points], [point[column] for point in points])
        rows += [{**point, "is_knee": point["rate"] == bend} for point in points]
    return pd.DataFrame(rows)


def knee(rates: Any, values: Any) -> float | None:
    """Return the rate at which a curve turns up, None for one that does not.

    Of the points between its ends, the one farthest below the straight line that joins them, both
    axes scaled to their ranges ("Kneedle", Satopaa et al., ICDCSW 2011, offline and unsmoothed).
    A curve that does not end at twice its lowest value has none.

    >>> knee([1, 2, 3, 4, 5], [1.0, 1.1, 1.3, 2.0, 9.0])
    4.0
    >>> knee([1, 2, 3], [1.0, 2.0, 3.0]) is None
    True
    >>> knee([1, 2, 3, 4, 5], [9.0, 9.1, 9.3, 10.0, 17.0]) is None
    True
    """
    x, y = np.asarray(rates, "float64"), np.asarray(values, "float64")
    known = np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 3 or y[-1] <= y[0] or y[-1] < _LEAST_RISE * y.min():
        return None
    sag = (x - x[0]) / (x[-1] - x[0]) - (y - y[0]) / (y[-1] - y[0])
    lowest = int(sag.argmax())
    return float(x[lowest]) if sag[lowest] >= _LEAST_SAG else None


def _middle(values: np.ndarray[Any, Any], column: str) -> dict[str, float]:
    """Return the geometric mean, the lowest value and the highest; of one value no ends."""
    known = values[np.isfinite(values) & (values > 0)]
    low, high = (known.min(), known.max()) if len(known) > 1 else (np.nan, np.nan)
    mean = np.exp(np.log(known).mean()) if len(known) else np.nan
    return {column: float(mean), "low": float(low), "high": float(high), "num": len(known)}


def _column(df: pd.DataFrame, metric: str, quantile: float | str, by: str) -> tuple[str, str]:
    """Return the metric's column and what the axis says."""
    if isinstance(quantile, str):
        ending, words = quantile, quantile
    else:
        ending = f"p{100 * quantile:g}"
        words = ending.upper()
    column = f"{metric}_{ending}"
    for name in (column, "rate", by):
        if name not in df.columns:
            metrics = [name for name in df.columns if name.endswith(f"_{ending}")]
            raise InvalidConfig(
                f"the table has no column {name!r}; of {ending} it has {', '.join(metrics) or '-'}"
            )
    return column, f"{words} {_NAMES.get(metric, metric)}"
