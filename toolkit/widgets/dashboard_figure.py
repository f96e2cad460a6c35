"""The dashboard as a matplotlib figure, for exported notebooks and papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from toolkit.widgets.fallback import new_figure
from toolkit.widgets.palette import LIGHT

__all__ = ["draw"]

_HEIGHTS = (3, 3, 4, 2.5, 1.5, 1.5)
_LABELS = ("tokens/s", "requests", "latency (ms)", "KV (%)", "hits (%)", "busy (%)")
_MAX_SILENCE = 4  # bins; a line across more would say that it knew what was in between


def draw(table: pd.DataFrame, bin_s: float, brush: tuple[float, float] | None) -> Any:
    """Return a figure with a lane per question, all over the same seconds."""
    figure = new_figure(9, 7.5)
    axes = figure.subplots(len(_HEIGHTS), 1, sharex=True, height_ratios=_HEIGHTS)
    start_s = table.time_s.to_numpy()
    # A bin is a step; its value holds until the next begins.
    edges = np.append(start_s, start_s[-1] + bin_s) if len(table) else np.zeros(1)

    def stack(axis: Any, columns: dict[str, tuple[str, str]], scale: float = 1.0) -> None:
        below = np.zeros(len(table))
        for column, (colour, label) in columns.items():
            top = below + scale * np.nan_to_num(table[column].to_numpy())
            axis.stairs(top, edges, baseline=below, fill=True, color=LIGHT[colour], label=label)
            below = top

    stack(axes[0], {"output_tokens_per_s": ("decode", "output tokens/s")})
    stack(axes[1], {"num_running": ("decode", "running"), "num_waiting": ("wait_seqs", "waiting")})
    for kind, colour in (("ttft", "prefill"), ("itl", "decode")):
        for p, style in ((50, "-"), (99, ":")):
            moments, values = _measured(start_s + bin_s / 2, table[f"{kind}_p{p}_s"], bin_s)
            look = {"marker": ".", "ms": 3, "lw": 1, "color": LIGHT[colour]}
            axes[2].plot(moments, 1e3 * values, style, label=f"{kind.upper()} p{p}", **look)
    measured = 1e3 * table[["ttft_p50_s", "ttft_p99_s", "itl_p50_s", "itl_p99_s"]].to_numpy()
    measured = measured[measured > 0]
    if len(measured):
        axes[2].set_ylim(0.8 * measured.min(), 1.25 * measured.max())
        axes[2].set_yscale("log")
        axes[2].yaxis.set_major_formatter("{x:g}")
        axes[2].yaxis.set_minor_formatter("")
    stack(axes[3], {"kv_held": ("decode", "held"), "kv_cached": ("cached", "cached")}, 100)
    stack(axes[4], {"prefix_hit_rate": ("cached", "prefix hits")}, 100)
    stack(axes[5], {"host_busy": ("wait_host", "kernel busy")}, 100)
    for axis, label in zip(axes, _LABELS, strict=True):
        axis.set_ylabel(label, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1.1), fontsize=7, frameon=False)
        if brush is not None:
            axis.axvspan(*brush, color=LIGHT["accent"], alpha=0.12)
    for axis in axes[3:]:
        axis.set_ylim(0, 100)
    axes[-1].set_xlabel("time since the record began (s)", fontsize=8)
    return figure


def _measured(moments_s: np.ndarray, lane: pd.Series, bin_s: float) -> tuple[Any, Any]:
    """Return the points that were measured, with a break wherever nothing was for some time."""
    values = lane.to_numpy()
    seen = ~np.isnan(values)
    moments_s, values = moments_s[seen], values[seen]
    breaks: np.ndarray = np.flatnonzero(np.diff(moments_s) > _MAX_SILENCE * bin_s) + 1
    return np.insert(moments_s, breaks, np.nan), np.insert(values, breaks, np.nan)
