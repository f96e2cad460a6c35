"""Draw a run: latencies over time, requests in the system, distributions of latency."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from toolkit.experiments.figure_style import COLOURS, DataFigure, figure, style
from toolkit.experiments.metrics import queue_growth, steady_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from toolkit.experiments.runs.results import Run

__all__ = ["run_figure"]

_SIZE_IN = (7.0, 2.3)
_NAMES = {"ttft_s": "TTFT", "e2e_s": "E2E", "itl_s": "ITL", "tpot_s": "TPOT"}
_COLOURS = dict(zip(_NAMES, COLOURS, strict=False))


def run_figure(run: Run) -> DataFigure:
    """Return a figure of three panels; its ``.data`` is the table of requests."""
    with style():
        drawing = figure(width_in=_SIZE_IN[0], height_in=_SIZE_IN[1])
        over_time, in_system, spread = drawing.subplots(1, 3)
        _draw_over_time(over_time, run.requests)
        _draw_in_system(in_system, run.requests)
        _draw_spread(spread, run)
    drawing.data = run.requests
    return drawing


def _draw_over_time(axes: Axes, requests: pd.DataFrame) -> None:
    for name in ("e2e_s", "ttft_s"):
        known = requests[requests[name] > 0]
        axes.plot(
            known["scheduled_s"], known[name], ".", ms=3, color=_COLOURS[name], label=_NAMES[name]
        )
    failed = requests[requests["status"] == "failed"]
    if len(failed):
        at_bottom = axes.get_xaxis_transform()
        axes.plot(
            failed["scheduled_s"],
            np.full(len(failed), 0.03),
            "x",
            color="black",
            label="failed",
            transform=at_bottom,
        )
    axes.set(xlabel="scheduled (s)", ylabel="latency (s)", yscale="log")
    _legend_above(axes, markerscale=2.5, handlelength=0.8)


def _draw_in_system(axes: Axes, requests: pd.DataFrame) -> None:
    started = requests["scheduled_s"].dropna().to_numpy("float64")
    ended = requests["finished_s"].dropna().to_numpy("float64")
    times = np.concatenate([started, ended])
    order = np.argsort(times, kind="stable")
    change = np.concatenate([np.ones(len(started)), -np.ones(len(ended))])
    axes.step(times[order], np.cumsum(change[order]), where="post", color="black")
    window = steady_window(requests)
    if window.start_s == window.start_s:
        axes.axvspan(*window, color="0.92", zorder=0)
        growth = queue_growth(requests, window).per_s
        words = f"{'fewer' if growth < 0 else 'more'} by {60 * abs(growth):.2g} a minute"
        axes.set_title(
            f"in grey: {'too short to tell' if math.isnan(growth) else words}",
            fontweight="normal",
            fontsize="small",
        )
    axes.set(xlabel="time (s)", ylabel="requests in the system")
    axes.set_ylim(bottom=0)


def _draw_spread(axes: Axes, run: Run) -> None:
    finished = run.requests[run.requests["status"] == "finished"]
    gaps = run.tokens.groupby("arrival_id")["time_s"].diff()
    samples: dict[str, Any] = {
        "itl_s": gaps,
        "tpot_s": finished["tpot_s"],
        "ttft_s": finished["ttft_s"],
        "e2e_s": finished["e2e_s"],
    }
    for name, values in samples.items():
        ordered = np.sort(values.dropna().to_numpy("float64"))
        ordered = ordered[ordered > 0]
        if len(ordered):
            above = 1 - np.arange(len(ordered)) / len(ordered)
            axes.step(ordered, above, where="post", color=_COLOURS[name], label=_NAMES[name])
    axes.set(xlabel="latency (s)", ylabel="share that takes longer", xscale="log", yscale="log")
    if samples["e2e_s"].notna().any():
        _legend_above(axes, handlelength=0.8)


def _legend_above(axes: Axes, **options: Any) -> None:
    """Put a legend into one line above a panel, where no point can lie under it."""
    names = axes.get_legend_handles_labels()[1]
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(names),
        borderaxespad=0.2,
        columnspacing=0.7,
        handletextpad=0.3,
        **options,
    )
