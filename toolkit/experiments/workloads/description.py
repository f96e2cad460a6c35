"""Sum a workload up in a dozen figures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from toolkit.experiments.workloads.columns import Columns
from toolkit.experiments.workloads.randomness import Array
from toolkit.experiments.workloads.workload import Workload

__all__ = ["describe", "first_times", "gaps"]

_MINUTE_S = 60.0
_QUANTILES = (50, 90, 99)


def describe(workload: Workload) -> pd.DataFrame:
    """Return a row per figure, in the column ``value``.

    ``gap_cv`` is the coefficient of variation of the gaps between arrivals (1: Poisson).
    ``fano_per_minute`` is variance / mean of the arrivals in whole minutes (1: Poisson), which
    shows the slow swings that single gaps do not; both are of requests with a time of their own.
    ``shared_prompt_share`` is the share of all prompt tokens that repeat the beginning of an
    earlier prompt: what a prefix cache without limits could save. ``length_correlation`` is between
    prompt and output. What cannot be said is not a number.
    """
    columns = workload.columns
    first_s = first_times(columns)
    shared = workload.content.num_shared_tokens(columns, workload.seed)
    figures = {
        "num_requests": len(workload),
        "num_following": int((columns.after >= 0).sum()),
        "span_s": float(first_s[-1] - first_s[0]),
        "rate": workload.rate,
        "gap_cv": _variation(gaps(columns)),
        "fano_per_minute": _fano(first_s),
        **_lengths("prompt", columns.num_prompt_tokens),
        **_lengths("output", columns.num_output_tokens),
        "length_correlation": _correlation(columns.num_prompt_tokens, columns.num_output_tokens),
        "shared_prompt_share": float(shared.sum() / columns.num_prompt_tokens.sum(dtype=np.int64)),
    }
    return pd.DataFrame({"value": pd.Series(figures, dtype=float)})


def first_times(columns: Columns) -> Array:
    """Return when the requests come that follow no other, sorted, s."""
    return np.sort(columns.due_s[columns.after < 0])


def gaps(columns: Columns) -> Array:
    """Return the times between those, s."""
    return np.diff(first_times(columns))


def _lengths(name: str, lengths: Array) -> dict[str, float]:
    shown = {f"{name}_mean": float(lengths.mean())}
    values: Array = np.percentile(lengths, _QUANTILES)
    shown.update((f"{name}_p{q}", float(v)) for q, v in zip(_QUANTILES, values, strict=True))
    return {**shown, f"{name}_max": float(lengths.max())}


def _variation(values: Array) -> float:
    return float(values.std() / values.mean()) if len(values) and values.mean() > 0 else math.nan


def _fano(times_s: Array) -> float:
    """Return variance / mean of the counts in whole minutes, of which there must be two."""
    num_minutes = int((times_s[-1] - times_s[0]) // _MINUTE_S)
    if num_minutes < 2:
        return math.nan
    minutes = ((times_s - times_s[0]) // _MINUTE_S).astype(np.int64)
    counts = np.bincount(minutes, minlength=num_minutes)[:num_minutes]
    return float(counts.var() / counts.mean())


def _correlation(first: Array, second: Array) -> float:
    if first.std() == 0 or second.std() == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])
