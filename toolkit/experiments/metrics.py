"""The field's metrics over the requests of a run: vLLM's definitions, GuideLLM's as variants.

TTFT counts from the time at which a request was scheduled, so every queue counts, the client's own
included. "vllm" (vllm bench serve): TPOT is (E2E - TTFT) / (output tokens - 1), of requests with
more than one; ITL is pooled over all gaps of all requests; throughput is what was completed,
divided by the time from the first request scheduled to the last token, ramp and drain included.
(vLLM's own clock runs from before the first gap between arrivals until the last stream is closed:
with n requests at a rate that the server keeps up with, it says about 1 / n less.)
"guidellm": TPOT is E2E / output tokens, so it includes the first token.

Requests near in time share a queue: intervals come from drawing blocks of time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from toolkit.errors import InvalidParameter
from toolkit.record.intervals import NUM_BLOCKS, num_blocks_for
from toolkit.record.limits import SLO_NAMES, check_limits, keeps_limits
from toolkit.record.summary import check_warmup, duration_s, summarise

__all__ = [
    "DEFINITIONS",
    "SLO_NAMES",
    "Growth",
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
_LEAST_BLOCKS = 5  # of a line through their means, so that its error is known within a half


class Window(NamedTuple):
    """A stretch of a load, in seconds from its start."""

    start_s: float
    end_s: float


class Growth(NamedTuple):
    """A change in how many requests are in a system, in requests per second."""

    per_s: float
    error_per_s: float  # one standard error


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

    It begins when nine tenths of the requests of the first tenth have ended, and ends when the last
    one is scheduled. Only the first ones are asked, since those that come later to an overloaded
    system wait ever longer. NaN where a load is too short to have such a stretch.
    """
    first = _first_of(requests)
    start_s = float(first["finished_s"].quantile(0.9, interpolation="higher"))
    end_s = float(requests["scheduled_s"].max())
    return Window(start_s, end_s) if start_s < end_s else Window(math.nan, math.nan)


def queue_growth(requests: pd.DataFrame, window: Window | None = None) -> Growth:
    """Return by how many requests per second the queue grew.

    In a stable system it is about 0; above capacity it is the rate less what is served. The queue
    is who is in the system (scheduled, not ended) less who would be there had each request stayed
    as long, per output token, as the first tenth of them: so bursts of arrivals, which come and go,
    are no growth. A least-squares line goes through its means in blocks of time, at most twenty;
    none is shorter than a median stay of the first tenth, because what is nearer in time is alike.

    Args:
        requests: That table of a ``Run``.
        window: The steady one by default; NaN comes of one with room for fewer than five blocks.
    """
    start_s, end_s = steady_window(requests) if window is None else window
    first = _first_of(requests)
    stay_s = first["finished_s"] - first["scheduled_s"]
    most = (end_s - start_s) / stay_s.median() if len(first) else NUM_BLOCKS
    if not (start_s < end_s and most >= _LEAST_BLOCKS):
        return Growth(math.nan, math.nan)
    is_refused = (requests["status"] == "failed") & requests["finished_s"].isna()
    taken = requests[~is_refused]
    pace_s = (stay_s / first["num_output_tokens"]).median() if len(first) else 0.0
    unhurried_s = taken["scheduled_s"] + pace_s * taken["num_output_tokens"]
    edges = np.linspace(start_s, end_s, int(min(NUM_BLOCKS, most)) + 1)
    queue = _mean_num(taken["scheduled_s"], taken["finished_s"].fillna(math.inf), edges)
    queue -= _mean_num(taken["scheduled_s"], unhurried_s, edges)
    (slope, _), covariance = np.polyfit(edges[:-1], queue, 1, cov=True)
    return Growth(float(slope), math.sqrt(covariance[0, 0]))


def _mean_num(
    start_s: pd.Series[Any], end_s: pd.Series[Any], edges: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return how many of the spans from start to end lie in each block of time, on average."""
    starts, ends = start_s.to_numpy("float64"), end_s.to_numpy("float64")
    return np.array(
        [
            np.clip(np.minimum(ends, high) - np.maximum(starts, low), 0, None).sum() / (high - low)
            for low, high in pairwise(edges)
        ]
    )


def after_warmup(requests: pd.DataFrame, warmup_s: float) -> pd.DataFrame:
    """Return what was scheduled after the warm-up and sent."""
    check_warmup(warmup_s)
    start_s = requests["scheduled_s"].min() + warmup_s
    return requests[requests["scheduled_s"] >= start_s]


def _first_of(requests: pd.DataFrame) -> pd.DataFrame:
    """Return the first tenth of the requests, those of it that finished."""
    num = math.ceil(len(requests) / 10)
    first = requests.sort_values("scheduled_s", kind="stable").head(num)
    return first[first["status"] == "finished"]


def _block_s(scheduled_s: pd.Series[Any]) -> float | None:
    """Return the length of the blocks that intervals draw; None where all came at once."""
    times = scheduled_s.to_numpy("float64", na_value=np.nan)
    times = times[~np.isnan(times)]
    span_s = float(times.max() - times.min()) if len(times) else 0.0
    num_blocks = num_blocks_for(len(times))
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
