"""A timeline as pixels: quick enough to be made whenever a cell shows one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from toolkit.widgets.palette import LIGHT, rgb
from toolkit.widgets.timeline_rows import KINDS, span_kinds

__all__ = ["timeline_pixels"]

WIDTH = 900
_LANE = 36
_GAP = 6


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
    tall = int(np.clip(400 // max(1, len(request_ids)), 2, 14))
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
