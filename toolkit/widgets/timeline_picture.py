"""A timeline as pixels: quick enough to be made whenever a cell shows one."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from toolkit.widgets.palette import LIGHT, rgb
from toolkit.widgets.timeline_rows import KINDS, span_kinds

__all__ = ["framed", "row_height", "timeline_pixels"]

WIDTH = 900
_LANE = 36
_GAP = 6
_LEAST_NAMED = 8  # pixels in which a name can be read


def row_height(num_rows: int) -> int:
    """Return how many pixels a request's row is high."""
    return int(np.clip(400 // max(1, num_rows), 2, 14))


def framed(image: str, request_ids: list[str], *, low_s: float, high_s: float) -> str:
    """Return the picture, an ``img`` element, with names beside its rows and an axis below."""
    tall = row_height(len(request_ids))
    if tall >= _LEAST_NAMED:
        names = [(name, tall) for name in request_ids]
    else:
        names = [(f"{len(request_ids)} requests", tall * len(request_ids))]
    names += [("", _GAP), ("tokens", _LANE), ("", _GAP), ("KV in %", _LANE)]
    labels = "".join(
        f'<div style="height:{height}px;line-height:{height}px;white-space:nowrap">'
        f"{escape(name)}</div>"
        for name, height in names
    )
    times = "".join(
        f"<span>{low_s + share * (high_s - low_s):.3g} s</span>"
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    axis = f'<div style="display:flex;justify-content:space-between">{times}</div>'
    return (
        '<div style="display:flex;gap:6px;font-size:10px;max-width:1000px">'
        f'<div style="text-align:right;flex:none">{labels}</div>'
        f'<div style="flex:1;min-width:0">{image}{axis}</div></div>'
    )


def timeline_pixels(
    request_ids: list[str],
    spans: pd.DataFrame,
    lanes: dict[str, Any],
    *,
    low_s: float,
    high_s: float,
) -> np.ndarray:
    """Draw a row per request and both lanes, [height, WIDTH, 3] uint8.

    Args:
        request_ids: From top to bottom.
        spans: Of these requests.
        lanes: What ``lane_arrays`` returned.
        low_s: Time at the left edge.
        high_s: Time at the right edge.
    """
    tall = row_height(len(request_ids))
    rows_height = tall * len(request_ids)
    image: np.ndarray = np.full((rows_height + 2 * (_LANE + _GAP), WIDTH, 3), 255, np.uint8)
    scale = WIDTH / max(high_s - low_s, 1e-9)

    def columns(times_s: Any) -> Any:
        return np.clip(((np.asarray(times_s) - low_s) * scale).astype(int), 0, WIDTH - 1)

    paints = np.array([rgb(LIGHT[name]) for name in KINDS], np.uint8)
    rows = pd.Index(request_ids).get_indexer(spans["request_id"])
    kinds = span_kinds(spans)
    gap = int(tall > 4)
    for row, kind, left, right in zip(
        rows, kinds, columns(spans["start_s"]), columns(spans["end_s"]), strict=True
    ):
        # Who waits is thinner than who computes.
        inset = (tall - gap) // 3 if KINDS[kind].startswith("wait") else 0
        top = row * tall
        image[top + inset : top + tall - gap - inset, left : right + 1] = paints[kind]
    for index, (values, most, name) in enumerate(
        (
            (lanes["step_tokens"], lanes["budget"].max(initial=1), "prefill"),
            (lanes["kv_percent"], 100, "decode"),
        )
    ):
        bottom = rows_height + (index + 1) * (_LANE + _GAP)
        image[bottom - _LANE : bottom] = rgb(LIGHT["free"])
        begins = columns(lanes["step_start"])
        ends = columns(lanes["step_start"] + lanes["step_s"])
        heights = np.ceil(values / most * _LANE).astype(int).clip(0, _LANE)
        for left, right, height in zip(begins, ends, heights, strict=True):
            image[bottom - height : bottom, left : right + 1] = rgb(LIGHT[name])
    return image
