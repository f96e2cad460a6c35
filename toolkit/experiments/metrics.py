"""The field's metrics over the requests of a run: vLLM's definitions, GuideLLM's as variants.

TTFT counts from the time at which a request was scheduled, so every queue counts, the client's own
included. "vllm" (vllm bench serve): TPOT is (E2E - TTFT) / (output tokens - 1), of requests with
more than one; ITL is pooled over all gaps of all requests; throughput is what was completed,
divided by the time from the first request scheduled to the last token, ramp and drain included.
(vLLM's own clock runs from before the first gap between arrivals until the last stream is closed:
with n requests at a rate that the server keeps up with, it says about 1 / n less.)
"guidellm": TPOT is E2E / output tokens, so it includes the first token.

Requests near in time share a queue: intervals come from drawing blocks of time. Twenty of them are
enough for an interval and long enough to be nearly independent (Schmeiser, Operations Research
30:3, 1982, has 10 to 30).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from toolkit.errors import InvalidParameter
from toolkit.record.limits import SLO_NAMES, check_limits, keeps_limits
from toolkit.record.summary import check_warmup, duration_s, summarise

__all__ = [
    "DEFINITIONS",
    "SLO_NAMES",
    "Window",
    "after_warmup",
    "attainment",
    "goodput",
    "normalized_latency",
    "queue_growth",
    "steady_window",
    "summarize",
]

DEFINITIONS = ("vllm", "guidellm")
_NUM_BLOCKS = 20
_LEAST_IN_BLOCK = 5  # requests; with fewer the blocks are longer


class Window(NamedTuple):
    """A stretch of a load, in seconds from its start."""

    start_s: float
    end_s: float


def summarize(
    requests: pd.DataFrame,
    tokens: pd.DataFrame | None = None,
    *,
    by: str | Sequence[str] | None = None,
    slo: Mapping[str, float] | None = None,
    warmup_s: float = 0.0,
    definition: str = "vllm",
) -> pd.DataFrame:
    """Return a row per metric, with intervals of 95 %, below a level per name in ``by``.

    Rows: ttft_s, tpot_s, itl_s, e2e_s, requests_per_s, output_tokens_per_s, total_tokens_per_s,
    goodput_per_s and goodput_share where limits are given, and how many requests finished, failed,
    were aborted or are unfinished. Columns: num, mean, std, p50, p90, p95, p99, each with _low and
    _high where it has an interval.

    Args:
        requests: That table of a ``Run``.
        tokens: That table of it; None leaves ITL empty.
        by: Columns of ``requests`` to group by, such as "tags.tenant".
        slo: Limits by name, one of ``SLO_NAMES``; a request is good when it keeps all of them.
        warmup_s: Leaves out requests scheduled in the first seconds after the first one.
        definition: "vllm" or "guidellm".

    Raises:
        InvalidParameter: no such column, limit or definition, a limit on what was not measured, or
            a negative time.
    """
    if definition not in DEFINITIONS:
        raise InvalidParameter(
            f"definition={definition!r} is not one of {', '.join(DEFINITIONS)}", param="definition"
        )
    table = requests.assign(arrival_s=requests["scheduled_s"], request_id=requests["arrival_id"])
    if definition == "guidellm":
        table["tpot_s"] = requests["e2e_s"] / requests["num_output_tokens"].where(
            requests["num_output_tokens"] > 0
        )
    gaps = None if tokens is None else _gaps(tokens)
    return summarise(
        table, gaps, by=by, warmup_s=warmup_s, slo=slo, block_s=_block_s(table["arrival_s"])
    )


def attainment(requests: pd.DataFrame, slo: Mapping[str, float], *, warmup_s: float = 0.0) -> float:
    """Return the share of the requests that keep all limits; NaN if none was sent.

    What failed, was aborted or never ended keeps none. For arguments and errors see ``summarize``.
    """
    limits = check_limits(slo)
    late = after_warmup(requests, warmup_s)
    return float(keeps_limits(late, limits).mean()) if len(late) else math.nan


def goodput(requests: pd.DataFrame, slo: Mapping[str, float], *, warmup_s: float = 0.0) -> float:
    """Return how many requests per second keep all limits (DistServe, OSDI 2024, section 2).

    Over the time from the first request scheduled to the last token. For arguments and errors see
    ``summarize``.
    """
    limits = check_limits(slo)
    late = after_warmup(requests, warmup_s)
    if not len(late):
        return math.nan
    table = late.assign(arrival_s=late["scheduled_s"])
    length_s = duration_s(table, float(table["arrival_s"].min()))
    return float(keeps_limits(late, limits).sum()) / length_s if length_s > 0 else math.nan


def normalized_latency(requests: pd.DataFrame, *, warmup_s: float = 0.0) -> float:
    """Return the mean over finished requests of end-to-end time per output token, in seconds.

    The measure of Orca (OSDI 2022) and PagedAttention (SOSP 2023, section 6.1). It hides stalls:
    look at ``itl_max_s`` beside it.
    """
    late = after_warmup(requests, warmup_s)
    finished = late[(late["status"] == "finished") & (late["num_output_tokens"] > 0)]
    return float((finished["e2e_s"] / finished["num_output_tokens"]).mean())


def steady_window(requests: pd.DataFrame) -> Window:
    """Return the stretch without ramp and drain.

    It begins when half of the requests would have ended that were sent at once, a median end-to-end
    time after the first one, and ends when the last one is scheduled. NaN where a load is too short
    to have such a stretch.
    """
    finished = requests[requests["status"] == "finished"]
    start_s = float(requests["scheduled_s"].min()) + float(finished["e2e_s"].median())
    end_s = float(requests["scheduled_s"].max())
    return Window(start_s, end_s) if start_s < end_s else Window(math.nan, math.nan)


def queue_growth(requests: pd.DataFrame, window: Window | None = None) -> float:
    """Return by how many requests per second those in the system grew, as a least-squares slope.

    In a stable queue it is about 0; above capacity it is the rate less what is served. In the
    system is what was scheduled and has not ended.

    Args:
        requests: That table of a ``Run``.
        window: The steady one by default; NaN comes of one that holds fewer than two moments.
    """
    start_s, end_s = steady_window(requests) if window is None else window
    scheduled = np.sort(requests["scheduled_s"].to_numpy("float64"))
    ended = requests["finished_s"].to_numpy("float64", na_value=np.nan)
    ended = np.sort(np.where(np.isnan(ended), np.inf, ended))
    moments = scheduled[(scheduled >= start_s) & (scheduled <= end_s)]
    if len(np.unique(moments)) < 2:
        return math.nan
    num_in = np.searchsorted(scheduled, moments, side="right")
    num_out = np.searchsorted(ended, moments, side="right")
    return float(np.polyfit(moments, num_in - num_out, 1)[0])


def after_warmup(requests: pd.DataFrame, warmup_s: float) -> pd.DataFrame:
    """Return what was scheduled after the warm-up and sent."""
    check_warmup(warmup_s)
    start_s = requests["scheduled_s"].min() + warmup_s
    return requests[requests["scheduled_s"] >= start_s]


def _block_s(scheduled_s: pd.Series[Any]) -> float | None:
    """Return the length of the blocks that intervals draw; None where all came at once."""
    times = scheduled_s.to_numpy("float64", na_value=np.nan)
    times = times[~np.isnan(times)]
    span_s = float(times.max() - times.min()) if len(times) else 0.0
    num_blocks = min(_NUM_BLOCKS, len(times) // _LEAST_IN_BLOCK)
    # A little more than an even share: the last one to come belongs to the last block.
    return span_s * (1 + 1e-9) / num_blocks if span_s and num_blocks > 1 else None


def _gaps(tokens: pd.DataFrame) -> pd.DataFrame:
    """Return tokens with the columns of a record's: request_id, sent_s and itl_s."""
    owner = tokens["arrival_id"].to_numpy("int64")
    order = np.lexsort((tokens["index"].to_numpy("int64"), owner))
    owner, time_s = owner[order], tokens["time_s"].to_numpy("float64")[order]
    gaps = np.diff(time_s, prepend=np.nan)
    gaps[1:][owner[1:] != owner[:-1]] = np.nan
    return pd.DataFrame({"request_id": owner, "sent_s": time_s, "itl_s": gaps})
