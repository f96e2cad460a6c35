"""A workload in one figure: arrivals over time, the gaps between them, and the lengths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from toolkit.experiments import figure_style
from toolkit.experiments.workloads.description import first_times, gaps
from toolkit.experiments.workloads.randomness import Array
from toolkit.experiments.workloads.workload import Workload

__all__ = ["draw"]

_SIZE_IN = (7.0, 2.3)
_MAX_BINS = 120
_MAX_POINTS = 400
_BINS_PER_DECADE = 12


def draw(workload: Workload) -> figure_style.DataFigure:
    """Return the figure; ``.data`` has the columns panel, series, x and y."""
    columns = workload.columns
    first_s, between_s = first_times(columns), gaps(columns)
    with figure_style.style():
        figure = figure_style.figure(width_in=_SIZE_IN[0], height_in=_SIZE_IN[1])
        over_time, between, lengths = figure.subplots(1, 3)
        drawn = [
            *_draw_rate(over_time, first_s),
            *_draw_gaps(between, between_s),
            *_draw_lengths(
                lengths,
                {"prompt": columns.num_prompt_tokens, "output": columns.num_output_tokens},
            ),
        ]
    table = pd.DataFrame(drawn, columns=["panel", "series", "x", "y"]).explode(["x", "y"])
    figure.data = table.astype({"x": float, "y": float}).reset_index(drop=True)
    return figure


Drawn = tuple[str, str, Array, Array]


def _draw_rate(axes: Any, first_s: Array) -> list[Drawn]:
    axes.set(title="arrivals", xlabel="time (s)", ylabel="requests/s")
    span_s = first_s[-1] - first_s[0]
    if span_s == 0:
        axes.text(0.5, 0.5, f"{len(first_s):,} at once", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return []
    width_s = _round_up(span_s / _MAX_BINS)
    edges = first_s[0] + width_s * np.arange(math.ceil(span_s / width_s) + 1)
    rates = np.histogram(first_s, edges)[0] / width_s
    axes.stairs(rates, edges, fill=True, alpha=0.35, color=figure_style.COLOURS[0])
    axes.stairs(rates, edges, color=figure_style.COLOURS[0], lw=0.8)
    mean = (len(first_s) - 1) / span_s
    axes.axhline(
        mean, color=figure_style.COLOURS[6], ls="--", lw=0.9, label=f"as drawn: {mean:.3g}/s"
    )
    axes.set_ylim(0, 1.25 * rates.max())
    axes.legend(loc="upper right")
    return [("arrivals", "requests/s", edges[:-1], rates)]


def _draw_gaps(axes: Any, between_s: Array) -> list[Drawn]:
    """Draw which share of the gaps is longer than x, beside that of exponential gaps."""
    axes.set(title="gaps", xlabel="gap (s)", ylabel="share of longer gaps")
    above = np.sort(between_s[between_s > 0])
    if not len(above):
        axes.text(0.5, 0.5, "no gaps", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return []
    mean_s = float(between_s.mean())
    shares = np.arange(len(above), 0, -1) / len(between_s)
    low, high = min(float(above[0]), mean_s / 100), 1.5 * float(above[-1])
    # So many points evenly over the curve's two directions, which are logarithmic.
    places = np.unique(
        np.concatenate([
            np.linspace(0, len(above) - 1, _MAX_POINTS // 2),
            len(above) - np.geomspace(1, len(above), _MAX_POINTS // 2),
        ]).astype(np.int64)
    )  # fmt: skip
    x: Array = np.append(low, above[places])
    y: Array = np.append(shares[0], shares[places])
    grid = np.geomspace(low, high, _MAX_POINTS // 2)
    exponential = np.exp(-grid / mean_s)
    grid, exponential = grid[exponential > y.min() / 2], exponential[exponential > y.min() / 2]
    colours = figure_style.COLOURS
    axes.step(x, y, color=colours[0], label="this load")
    axes.plot(grid, exponential, color=colours[6], ls="--", lw=0.9, label="Poisson")
    axes.set(xscale="log", yscale="log", xlim=(max(low, high / 1e5), high))
    axes.legend(loc="lower left")
    return [("gaps", "this load", x, y), ("gaps", "Poisson", grid, exponential)]


def _draw_lengths(axes: Any, lengths: dict[str, Array]) -> list[Drawn]:
    axes.set(title="lengths", xlabel="tokens", ylabel="requests (%)", xscale="log")
    drawn: list[Drawn] = []
    for place, (name, column) in enumerate(lengths.items()):
        edges = _length_edges(column)
        shares = 100 * np.histogram(column, edges)[0] / len(column)
        look = {"color": figure_style.COLOURS[place], "ls": "-" if place == 0 else "--"}
        mean = column.mean()
        said = f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"
        axes.stairs(shares, edges, label=f"{name}, mean {said}", **look)
        drawn.append(("lengths", name, np.sqrt(edges[:-1] * edges[1:]), shares))
    shortest = min(float(column.min()) for column in lengths.values())
    longest = max(float(column.max()) for column in lengths.values())
    axes.set_xlim(max(shortest / 2, 0.7), 2 * longest)
    axes.set_ylim(0, 1.4 * max(shares.max() for *_, shares in drawn))  # room for the legend
    axes.xaxis.set_minor_formatter("")
    axes.legend(loc="upper left")
    return drawn


def _length_edges(lengths: Array) -> Array:
    """Return bins of one width on a logarithmic axis, none without a whole number in it."""
    low, high = float(lengths.min()), float(lengths.max())
    num = max(math.ceil(_BINS_PER_DECADE * math.log10((high + 1) / low)), 1)
    edges = np.unique(np.ceil(np.geomspace(low, high + 1, num + 1) - 1e-9)) - 0.5
    return edges if len(edges) > 1 else np.array([low - 0.5, low + 0.5])


def _round_up(width: float) -> float:
    """Return the next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9))
