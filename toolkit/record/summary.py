"""The field's metrics over a record: TTFT, TPOT, ITL, E2E, throughput, goodput; vLLM's definitions.

TTFT is from a request's arrival to its first token, so waiting counts. TPOT is (E2E - TTFT) /
(output tokens - 1), for requests with more than one. ITL is the gap between two tokens, over all
gaps of all requests, so long answers weigh more. Only requests that finished count; throughput is
what was completed, divided by the time from the first arrival to the last token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import InvalidParameter
from toolkit.record.intervals import (
    grouped_mean_interval,
    grouped_percentile_intervals,
    mean_interval,
    percentile_interval,
    share_interval,
)
from toolkit.record.limits import check_limits, keeps_limits

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_warmup", "duration_s", "summarise"]

PERCENTILES = (50, 90, 95, 99)
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
_WITH_INTERVAL = ("mean", *(f"p{percent}" for percent in PERCENTILES))
COLUMNS = (
    "num",
    "mean",
    "std",
    *(f"p{percent}" for percent in PERCENTILES),
    *(f"{name}_{end}" for name in _WITH_INTERVAL for end in ("low", "high")),
)


def summarise(
    requests: pd.DataFrame,
    tokens: pd.DataFrame | None,
    *,
    by: str | Sequence[str] | None = None,
    warmup_s: float = 0.0,
    slo: Mapping[str, float] | None = None,
    block_s: float | None = None,
) -> pd.DataFrame:
    """Return a row per metric, below a level per name in ``by``; the module says what they mean.

    Intervals are of 95 %, and take the requests as independent of one another: in a full queue
    they are not, and the truth is wider; ``block_s`` then says how long they stay alike. Where
    there are too few requests to have a bound, it is NaN.

    Args:
        requests: That table of a record: a row per sample.
        tokens: That table; None where none were kept, which leaves ITL empty.
        by: Columns of ``requests`` to group by, such as "tags.tenant".
        warmup_s: Leaves out requests that arrived in the first seconds after the first arrival.
        slo: Limits by name, one of `limits.SLO_NAMES`; a request is good when it keeps them all.
        block_s: Intervals come from drawing whole blocks of arrivals, each so many seconds long,
            in place of single requests.

    Raises:
        InvalidParameter: no such column or limit, one on what was not measured, or a negative time.
    """
    import pandas as pd

    from toolkit.record.summary_frame import SummaryFrame

    limits = check_limits({} if slo is None else slo)
    check_warmup(warmup_s)
    names = _checked_names(by, requests)
    start_s = float(requests["arrival_s"].min()) + warmup_s if len(requests) else 0.0
    if not names:
        return _table(_rows(requests, tokens, start_s, limits, block_s))
    groups = requests.groupby(names if len(names) > 1 else names[0], dropna=False, sort=True)
    tables = {key: _table(_rows(group, tokens, start_s, limits, block_s)) for key, group in groups}
    if not tables:
        return _table({})
    return SummaryFrame(pd.concat(tables, names=[*names, "metric"]))


def check_warmup(warmup_s: float) -> None:
    """Refuse what is no number of seconds from 0, with InvalidParameter."""
    if not isinstance(warmup_s, Real) or not warmup_s >= 0:
        raise InvalidParameter(
            f"warmup_s={warmup_s!r} must be a number of seconds, 0 or more", param="warmup_s"
        )


def _checked_names(by: str | Sequence[str] | None, requests: pd.DataFrame) -> list[str]:
    if isinstance(by, str):
        by = [by]
    names = [] if by is None else list(by) if isinstance(by, Iterable) else [by]
    for name in names:
        if not isinstance(name, str) or name not in requests.columns:
            tags = [column for column in requests.columns if column.startswith("tags.")]
            raise InvalidParameter(
                f"by={name!r} is no column of record.requests; its tags: {', '.join(tags) or '-'}",
                param="by",
            )
    return names


def _table(rows: dict[str, dict[str, float]]) -> pd.DataFrame:
    from toolkit.record.summary_frame import SummaryFrame

    frame = SummaryFrame.from_dict(rows, orient="index", columns=list(COLUMNS), dtype="float64")
    frame.index.name = "metric"
    frame["num"] = frame["num"].astype("int64")
    return frame


def _rows(
    requests: pd.DataFrame,
    tokens: pd.DataFrame | None,
    start_s: float,
    limits: dict[str, float],
    block_s: float | None,
) -> dict[str, dict[str, float]]:
    """Return the metrics of one group, whose window opens at ``start_s``."""
    late = requests[requests["arrival_s"] >= start_s]
    finished = late[late["status"] == "finished"]
    blocks = _blocks(finished, start_s, block_s)
    rows = {name: _latency(finished[name], blocks) for name in ("ttft_s", "tpot_s")}
    rows["itl_s"] = _gaps(tokens, finished, blocks)
    rows["e2e_s"] = _latency(finished["e2e_s"], blocks)
    rows |= _throughput(requests, tokens, start_s)
    if limits:
        rows |= _goodput(late, limits, start_s, block_s, duration_s(requests, start_s))
    ends = late["status"].isin(("finished", "failed", "aborted"))
    for status in ("finished", "failed", "aborted"):
        rows[status] = {"num": int((late["status"] == status).sum())}
    rows["unfinished"] = {"num": int((~ends).sum())}
    return rows


def _blocks(
    requests: pd.DataFrame, start_s: float, block_s: float | None
) -> np.ndarray[Any, Any] | None:
    """Return the number of the block of time in which each request arrived; None for no blocks."""
    if block_s is None:
        return None
    return np.floor((requests["arrival_s"].to_numpy("float64") - start_s) / block_s)


def _latency(
    column: pd.Series[Any], blocks: np.ndarray[Any, Any] | None = None
) -> dict[str, float]:
    values = column.to_numpy("float64", na_value=np.nan)
    is_known = ~np.isnan(values)
    values = values[is_known]
    if not len(values):
        return {"num": 0}
    if blocks is not None:
        return _moments(np.sort(values)) | _drawn_intervals(values, blocks[is_known])
    values = np.sort(values)
    row = _moments(values)
    row["mean_low"], row["mean_high"] = mean_interval(values)
    for percent in PERCENTILES:
        low, high = percentile_interval(values, percent)
        row[f"p{percent}_low"], row[f"p{percent}_high"] = low, high
    return row


def _gaps(
    tokens: pd.DataFrame | None,
    finished: pd.DataFrame,
    blocks: np.ndarray[Any, Any] | None = None,
) -> dict[str, float]:
    """Return ITL's row; its intervals come from drawing whole requests, whose gaps are alike."""
    if tokens is None or not len(tokens):
        return {"num": 0}
    known = tokens["itl_s"].notna() & tokens["request_id"].isin(finished["request_id"])
    values = tokens.loc[known, "itl_s"].to_numpy("float64")
    if not len(values):
        return {"num": 0}
    owners = tokens.loc[known, "request_id"]
    if blocks is not None:
        owners = owners.map(dict(zip(finished["request_id"], blocks, strict=True)))
    row = _moments(np.sort(values))
    return row | _drawn_intervals(values, owners.to_numpy(str if blocks is None else "float64"))


def _drawn_intervals(
    values: np.ndarray[Any, Any], owners: np.ndarray[Any, Any]
) -> dict[str, float]:
    """Return the intervals that come from drawing owners, each with all its values."""
    owners = np.unique(owners, return_inverse=True)[1]
    row = dict(zip(("mean_low", "mean_high"), grouped_mean_interval(values, owners), strict=True))
    intervals = grouped_percentile_intervals(values, owners, PERCENTILES)
    for percent, (low, high) in zip(PERCENTILES, intervals, strict=True):
        row[f"p{percent}_low"], row[f"p{percent}_high"] = low, high
    return row


def _moments(ordered: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return number, mean, sample standard deviation and percentiles, as NumPy has them."""
    percentiles = np.percentile(ordered, PERCENTILES)
    return {
        "num": len(ordered),
        "mean": float(ordered.mean()),
        "std": float(ordered.std(ddof=1)) if len(ordered) > 1 else float("nan"),
        **{f"p{p}": float(value) for p, value in zip(PERCENTILES, percentiles, strict=True)},
    }


def duration_s(requests: pd.DataFrame, start_s: float) -> float:
    """Return the seconds from the first arrival, not before ``start_s``, to the last token."""
    ends = requests.loc[requests["status"] == "finished", ["last_token_s", "finished_s"]]
    begin = requests.loc[requests["arrival_s"] >= start_s, "arrival_s"].min()
    begin_s = max(start_s, float(begin)) if begin == begin else start_s
    last = ends["last_token_s"].fillna(ends["finished_s"]).max()
    return float(last) - begin_s if last == last else float("nan")


def _throughput(
    requests: pd.DataFrame, tokens: pd.DataFrame | None, start_s: float
) -> dict[str, dict[str, float]]:
    """Return rates over the window: what was completed in it, whenever it arrived."""
    length_s = duration_s(requests, start_s)
    done = requests[(requests["status"] == "finished") & (requests["finished_s"] >= start_s)]
    num_output = _num_output_since(done, tokens, start_s)
    num_prompt = int(done["num_prompt_tokens"].sum())
    counts = {
        "requests_per_s": len(done),
        "output_tokens_per_s": num_output,
        "total_tokens_per_s": num_prompt + num_output,
    }
    return {
        name: {"num": count, "mean": count / length_s if length_s > 0 else float("nan")}
        for name, count in counts.items()
    }


def _num_output_since(requests: pd.DataFrame, tokens: pd.DataFrame | None, start_s: float) -> int:
    """Return how many output tokens requests were sent from ``start_s`` on.

    A request's own count holds. Of one that began before, the share that was sent since is that of
    its rows in ``tokens``: over HTTP these are pieces of a stream, not tokens.
    """
    counts = requests["num_output_tokens"]
    if tokens is None or not (is_early := tokens["sent_s"] < start_s).any():
        return int(counts.sum())
    early_share = is_early.groupby(tokens["request_id"]).mean()
    num_early = counts * requests["request_id"].map(early_share).fillna(0.0)
    return round(float(counts.sum() - num_early.sum()))


def _goodput(
    late: pd.DataFrame,
    limits: dict[str, float],
    start_s: float,
    block_s: float | None,
    length_s: float,
) -> dict[str, dict[str, float]]:
    """Return how many requests keep all limits, per second and of those that ended."""
    ended = late[late["status"].isin(("finished", "failed", "aborted"))]
    good = keeps_limits(ended, limits)
    num_good = int(good.sum())
    share: dict[str, float] = {"num": num_good}
    if len(ended):
        blocks = _blocks(ended, start_s, block_s)
        if blocks is None:
            low, high = share_interval(num_good, len(ended))
        else:
            owners = np.unique(blocks, return_inverse=True)[1]
            low, high = grouped_mean_interval(good.astype("float64"), owners)
        share |= {"mean": num_good / len(ended), "mean_low": low, "mean_high": high}
    rate = num_good / length_s if length_s > 0 else float("nan")
    return {"goodput_per_s": {"num": num_good, "mean": rate}, "goodput_share": share}
