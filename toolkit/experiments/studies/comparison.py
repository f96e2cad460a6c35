"""Two runs of one workload, request by request: by how much one is faster, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidParameter, UnlikeRuns
from toolkit.html_table import rows_html
from toolkit.record.intervals import NUM_BLOCKS, num_blocks_for, paired_intervals

if TYPE_CHECKING:
    from toolkit.experiments.runs.results import Run

__all__ = ["RunComparison", "compare", "jain_index"]

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True, repr=False)
class RunComparison:
    """What ``compare`` found.

    ``table`` has a row for the mean and each percentile of the metric: a, b, difference (b - a)
    with its interval of 95 %, and ratio (b / a). ``pairs`` has a row per request, ``tags`` a row
    per value of a tag, with its mean slowdown (b / a of its requests' latency), ``fairness`` Jain's
    index of each run; all three are of the pairs alone. ``left_out`` has the number of requests
    that are no pair: finished with the metric "only in a", "only in b", or "in neither".
    """

    metric: str
    table: pd.DataFrame
    pairs: pd.DataFrame
    tags: pd.DataFrame
    fairness: pd.DataFrame
    num_blocks: int
    left_out: Mapping[str, int]

    def summary(self) -> str:
        """Return in one line which run is better in the mean, and whether that is sure."""
        mean = self.table.loc["mean"]
        sure = not mean["low"] <= 0 <= mean["high"]
        change = f"mean {self.metric} of b is {mean['ratio']:.3f} times that of a"
        return f"{change}{'' if sure else ', which may be chance'} ({self._counted()})"

    def _counted(self) -> str:
        told = ", ".join(f"{num} finished {where}" for where, num in self.left_out.items() if num)
        return f"{len(self.pairs)} pairs; left out: {told}" if told else f"{len(self.pairs)} pairs"

    def __repr__(self) -> str:
        parts = [self.summary(), self.table.to_string(float_format="{:.4g}".format)]
        if len(self.tags):
            parts.append(self.tags.to_string(float_format="{:.4g}".format, index=False))
        parts.append(self.fairness.to_string(float_format="{:.4f}".format))
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        rows = [
            (
                str(name),
                f"{row['a']:.4g}",
                f"{row['b']:.4g}",
                f"{row['difference']:+.4g} ({row['low']:+.4g} to {row['high']:+.4g})",
                f"{row['ratio']:.3f}",
            )
            for name, row in self.table.iterrows()
        ]
        columns = [self.metric, "a", "b", "b - a (95 %)", "b / a"]
        html = rows_html(columns, rows, note=self.summary())
        if len(self.tags):
            told = self.tags.map(
                lambda value: f"{value:.4g}" if isinstance(value, float) else value
            )
            html += rows_html(list(told), told.astype(str).to_numpy().tolist())
        return html


def compare(
    a: Run,
    b: Run,
    metric: str = "ttft_s",
    *,
    allow: Iterable[str] = ("policy",),
    num_blocks: int = NUM_BLOCKS,
    warmup_s: float = 0.0,
) -> RunComparison:
    """Compare two runs of one workload, paired on its arrivals.

    Latencies of requests near in time share a queue, so intervals come from drawing blocks of time
    with all that arrived in them (block bootstrap), the same ones of both runs. Jain's index (Jain,
    Chiu and Hawe, DEC-TR-301, 1984) is of the mean output tokens per second of each request, from
    arrival to end; over the values of each tag, and over all requests.

    Args:
        a: What is compared with.
        b: What is compared.
        metric: A column of ``requests`` that is a time.
        allow: Settings that may differ, because their effect is what is looked for.
        num_blocks: Blocks of time; fewer where these would hold too few requests.
        warmup_s: Leaves out what was scheduled in the first seconds.

    Raises:
        UnlikeRuns: other workloads, or settings that differ and are not allowed to.
        InvalidParameter: there is no such metric, or no request finished in both runs.
    """
    _require_alike(a, b, set(allow))
    for run in (a, b):
        if metric not in run.requests.columns or not metric.endswith("_s"):
            times = [name for name in run.requests.columns if name.endswith("_s")]
            raise InvalidParameter(
                f"metric={metric!r} is no time in run.requests; there are {', '.join(times)}",
                param="metric",
            )
    pairs = _paired(a.requests, b.requests, metric, warmup_s)
    owners, num_used = _blocks_of(pairs["scheduled_s"].to_numpy("float64"), num_blocks)
    return RunComparison(
        metric,
        _table(pairs, owners),
        pairs,
        _tag_rows(pairs),
        _fairness(pairs),
        num_used,
        _left_out(a.requests, b.requests, metric, warmup_s),
    )


def jain_index(shares: Any) -> float:
    """Return (sum x)^2 / (n sum x^2): 1 when all are alike, 1 / n when one has everything.

    >>> jain_index([1.0, 1.0, 1.0]), jain_index([1.0, 0.0])
    (1.0, 0.5)
    """
    values = np.asarray(shares, "float64")
    squares = float((values**2).sum())
    return float(values.sum()) ** 2 / (len(values) * squares) if squares else float("nan")


def _require_alike(a: Run, b: Run, allowed: set[str]) -> None:
    one, other = a.workload_description, b.workload_description
    if one.get("fingerprint") != other.get("fingerprint"):
        texts = one.get("repr"), other.get("repr")
        if texts[0] == texts[1]:
            what = f"both are {texts[0]}, but the requests themselves differ"
        else:
            what = f"{texts[0]} and {texts[1]}"
        raise UnlikeRuns(f"the runs had other workloads: {what}; give both the same one")
    unlike = sorted(_differing(a.settings, b.settings) - allowed)
    if unlike:
        told = ", ".join(
            f"{key} ({a.settings.get(key)!r}, {b.settings.get(key)!r})" for key in unlike
        )
        raise UnlikeRuns(
            f"the runs differ in {told}; to compare them all the same, "
            f"allow={tuple(sorted(allowed | set(unlike)))!r}"
        )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    return {key for key in {*one, *other} if one.get(key) != other.get(key)}


_KEPT = ("scheduled_s", "num_output_tokens", "e2e_s")
_OF_BOTH = ("num_output_tokens", "e2e_s")


def _paired(a: pd.DataFrame, b: pd.DataFrame, metric: str, warmup_s: float) -> pd.DataFrame:
    """Return a row per arrival that finished in both: its metric, latency and tags."""
    tags = [name for name in a.columns if name.startswith("tags.")]
    columns = list(dict.fromkeys(["arrival_id", *_KEPT, metric, *tags]))
    finished = a[(a["status"] == "finished") & (a["scheduled_s"] >= warmup_s)]
    others = b.loc[
        b["status"] == "finished", list(dict.fromkeys(["arrival_id", *_OF_BOTH, metric]))
    ]
    pairs = finished[columns].merge(others, on="arrival_id", suffixes=("_a", "_b"))
    pairs = pairs[pairs[f"{metric}_a"].notna() & pairs[f"{metric}_b"].notna()]
    if pairs.empty:
        raise InvalidParameter(
            f"no request has {metric} in both runs: nothing finished in one of them, or "
            f"warmup_s={warmup_s:g} leaves nothing",
            param="metric",
        )
    pairs = pairs.rename(columns={f"{metric}_a": "a", f"{metric}_b": "b"})
    for side in ("a", "b"):  # the metric may be the latency itself
        if f"e2e_s_{side}" not in pairs:
            pairs[f"e2e_s_{side}"] = pairs[side]
    pairs["difference"] = pairs["b"] - pairs["a"]
    return pairs.sort_values("scheduled_s", kind="stable", ignore_index=True)


def _left_out(a: pd.DataFrame, b: pd.DataFrame, metric: str, warmup_s: float) -> dict[str, int]:
    """Count the requests of either run, after the warm-up, that are no pair."""
    asked, good = [
        [
            set(table.loc[where & (table["scheduled_s"] >= warmup_s), "arrival_id"])
            for table, where in zip((a, b), wheres, strict=True)
        ]
        for wheres in (
            [pd.Series(True, table.index) for table in (a, b)],
            [(table["status"] == "finished") & table[metric].notna() for table in (a, b)],
        )
    ]
    in_either = asked[0] | asked[1]
    return {
        "only in a": len(good[0] - good[1]),
        "only in b": len(good[1] - good[0]),
        "in neither": len(in_either - good[0] - good[1]),
    }


def _blocks_of(times_s: np.ndarray[Any, Any], num_blocks: int) -> tuple[np.ndarray[Any, Any], int]:
    """Number the blocks of equal time that the (sorted) times lie in; empty ones are left out."""
    num = num_blocks_for(len(times_s), num_blocks)
    span_s = float(times_s[-1] - times_s[0])
    if not span_s:  # all at once: blocks of as many requests each
        places: np.ndarray[Any, Any] = np.arange(len(times_s)) * num // len(times_s)
    else:
        places = np.minimum(((times_s - times_s[0]) / span_s * num).astype("int64"), num - 1)
    owners = np.unique(places, return_inverse=True)[1]
    return owners, int(owners.max()) + 1


def _table(pairs: pd.DataFrame, owners: np.ndarray[Any, Any]) -> pd.DataFrame:
    a, b = pairs["a"].to_numpy("float64"), pairs["b"].to_numpy("float64")
    intervals = paired_intervals(a, b, owners, PERCENTILES)
    values = [
        (a.mean(), b.mean()),
        *zip(*np.percentile((a, b), PERCENTILES, axis=1).T, strict=True),
    ]
    return pd.DataFrame(
        {
            "a": [float(one) for one, _ in values],
            "b": [float(other) for _, other in values],
            "difference": [float(other - one) for one, other in values],
            "low": [low for low, _ in intervals],
            "high": [high for _, high in intervals],
            "ratio": [float(other / one) if one else float("nan") for one, other in values],
        },
        index=["mean", *(f"p{percent}" for percent in PERCENTILES)],
    )


def _tag_rows(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per value of each tag: its requests, their metric, and their slowdown."""
    rows = []
    slowdown = pairs["e2e_s_b"] / pairs["e2e_s_a"]
    for name in (column for column in pairs.columns if column.startswith("tags.")):
        for value, group in pairs.groupby(name, dropna=True, sort=True):
            means = float(group["a"].mean()), float(group["b"].mean())
            rows.append(
                (name[len("tags.") :], str(value), len(group), *means, slowdown[group.index].mean())
            )
    return pd.DataFrame(rows, columns=["tag", "value", "num", "a", "b", "slowdown"])


def _fairness(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return Jain's index of output tokens per second, by tag and over all requests."""
    speeds = pd.DataFrame(
        {side: pairs[f"num_output_tokens_{side}"] / pairs[f"e2e_s_{side}"] for side in ("a", "b")}
    )
    rows = {"requests": [jain_index(speeds["a"]), jain_index(speeds["b"])]}
    for name in (column for column in pairs.columns if column.startswith("tags.")):
        means = speeds.groupby(pairs[name]).mean()
        rows[name] = [jain_index(means["a"]), jain_index(means["b"])]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["a", "b"])
