"""A timeline as pixels: quick enough to be made whenever a cell shows one."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from toolkit.widgets.fallback import picture, raster_png
from toolkit.widgets.palette import LIGHT, rgb
from toolkit.widgets.timeline_rows import KINDS, span_kinds

__all__ = ["timeline_html", "timeline_pixels"]

WIDTH = 900
_LANE = 36
_GAP = 6
_NUM_TICKS = 5
_NAMES_FROM = 10  # pixels a row; in lower ones names could not be read


def timeline_html(
    request_ids: list[str],
    spans: pd.DataFrame,
    lanes: dict[str, Any],
    *,
    low: float,
    high: float,
    unit: str,
) -> str:
    """Return the picture of ``timeline_pixels`` with an axis and the names of its rows.

    Args:
        request_ids: From top to bottom.
        spans: Of these requests.
        lanes: What ``lane_arrays`` returned.
        low: Time, or step, at the left edge.
        high: Time, or step, at the right edge.
        unit: Of both.
    """
    pixels = timeline_pixels(request_ids, spans, lanes, low_s=low, high_s=high)
    alt = f"{len(request_ids)} requests from {low:.3g} to {high:.3g} {unit}"
    style = f"display:block;width:100%;height:{len(pixels)}px;background:white"
    image = picture(raster_png(pixels), alt=alt, style=style)
    tall = _row_height(len(request_ids))
    cut = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"

    def label(text: str, height: int, above: int = 0) -> str:
        size = f"height:{height}px;line-height:{height}px;margin-top:{above}px"
        return f'<div style="{size};{cut}">{escape(text)}</div>'

    rows = (
        [label(name, tall) for name in request_ids]
        if tall >= _NAMES_FROM
        else [label("requests", tall * len(request_ids))]
    )
    names = "".join([*rows, label("tokens", _LANE, _GAP), label("KV in %", _LANE, _GAP)])
    shares = [index / (_NUM_TICKS - 1) for index in range(_NUM_TICKS)]
    ticks = "".join(
        f'<span style="position:absolute;white-space:nowrap;left:{share:.0%};'
        f'transform:translateX(-{share:.0%})">'
        f"{low + share * (high - low):.3g}{' ' + unit if share in (0, 1) else ''}</span>"
        for share in shares
    )
    return (
        '<div style="display:flex;max-width:900px;font-size:10px">'
        f'<div style="flex:0 0 90px;padding-right:6px;text-align:right;min-width:0">{names}</div>'
        f'<div style="flex:1 1 0;min-width:0">{image}'
        f'<div style="position:relative;height:16px">{ticks}</div></div></div>'
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
    tall = _row_height(len(request_ids))
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


def _row_height(num_rows: int) -> int:
    """Return the pixels of a row: all fit into about 400, and each is seen."""
    return int(np.clip(400 // max(1, num_rows), 2, 14))
