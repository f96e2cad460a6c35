"""Requests, spans and steps as the arrays that Timeline sends and draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from toolkit.request import WAIT_CAUSES

__all__ = [
    "KINDS",
    "lane_arrays",
    "over_steps",
    "request_arrays",
    "span_arrays",
    "span_kinds",
    "span_name",
    "tag_codes",
]

# By place, in the page too: the names of the palette's colours.
KINDS = (
    "tokenize",
    "prefill",
    "decode",
    "preempted",
    "emit",
    *(f"wait_{cause}" for cause in WAIT_CAUSES),
)
_PLACES = {name: place for place, name in enumerate(KINDS)}
_NAMES = {"prefill": "prefill chunk", "emit": "send"}
_MAX_TAG_VALUES = 1000  # more would make a long list, and no order that the eye finds


def span_name(kind: str) -> str:
    """Return what a legend calls a kind, as the page does: "wait for blocks" of "wait_blocks"."""
    return _NAMES.get(kind, kind.replace("wait_", "wait for "))


def span_kinds(spans: pd.DataFrame) -> np.ndarray:
    """Return the index in KINDS of each span, [num_spans] uint8."""
    names = spans["kind"].where(spans["kind"] != "wait", "wait_" + spans["cause"].astype(str))
    return names.map(_PLACES).fillna(_PLACES["wait_host"]).to_numpy(np.uint8)


def over_steps(spans: pd.DataFrame) -> pd.DataFrame:
    """Return the spans with steps for seconds; what lies outside steps is left out."""
    inside = spans[(spans["start_step"] >= 0) & ~spans["kind"].isin(("tokenize", "emit"))]
    return inside.assign(start_s=inside["start_step"].astype(float), end_s=inside["end_step"] + 1.0)


def span_arrays(spans: pd.DataFrame, request_ids: list[str]) -> dict[str, np.ndarray]:
    """Return the spans of these requests, in their order; ``ends[i]`` is where request i's end."""
    rows = pd.Index(request_ids).get_indexer(spans["request_id"])
    order = np.argsort(rows, kind="stable")
    order = order[rows[order] >= 0]
    spans = spans.iloc[order]
    return {
        "ends": np.bincount(rows[order], minlength=len(request_ids)).cumsum().astype(np.int32),
        "kind": span_kinds(spans),
        "start": spans["start_s"].to_numpy(np.float64),
        "end": spans["end_s"].to_numpy(np.float64),
        "first_step": spans["start_step"].to_numpy(np.int32),
        "last_step": spans["end_step"].to_numpy(np.int32),
        "tokens": spans["num_tokens"].to_numpy(np.int32),
    }


def request_arrays(requests: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return what requests are sorted by; unknown times are NaN."""
    return {
        name: requests[column].to_numpy(np.float64, na_value=np.nan)
        for name, column in (("arrival", "arrival_s"), ("ttft", "ttft_s"))
    }


def tag_codes(requests: pd.DataFrame) -> dict[str, list[Any]]:
    """Return each tag's values in the order of the requests, as text; None where there is none."""
    tags = {}
    for column in requests.columns:
        if column.startswith("tags.") and requests[column].nunique() <= _MAX_TAG_VALUES:
            tags[column.removeprefix("tags.")] = [
                None if pd.isna(value) else str(value) for value in requests[column]
            ]
    return tags


def lane_arrays(steps: pd.DataFrame, num_blocks: int) -> dict[str, np.ndarray]:
    """Return the lanes below the requests: tokens against their budget, blocks in use."""
    return {
        "step": steps["step"].to_numpy(np.int32),
        "step_start": steps["start_s"].to_numpy(np.float64),
        "step_s": steps["duration_s"].to_numpy(np.float32),
        "step_tokens": steps["num_tokens"].to_numpy(np.int32),
        "budget": steps["token_budget"].to_numpy(np.int32),
        "kv_percent": (steps["blocks_used"] * (100 / max(1, num_blocks))).to_numpy(np.float32),
    }
