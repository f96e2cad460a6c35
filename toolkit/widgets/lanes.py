"""Bin what an engine did into short spans of time: the lanes of the dashboard.

Rows come in as they are recorded, each once; a table of the bins costs what changed since. Torch-
and front-end-free, so that tests and benchmarks can feed it by hand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["LANES", "STEP_COLUMNS", "Lanes"]

# What a bin says. Times in seconds; shares between 0 and 1; NaN where nothing was measured.
LANES = (
    "output_tokens_per_s",
    "num_running",
    "num_waiting",
    "ttft_p50_s",
    "ttft_p99_s",
    "itl_p50_s",
    "itl_p99_s",
    "kv_held",
    "kv_cached",
    "prefix_hit_rate",
    "host_busy",
)
# What is read of the steps table.
STEP_COLUMNS = (
    "start_s",
    "duration_s",
    "host_gap_s",
    "num_prompt_tokens",
    "num_running",
    "num_waiting",
    "num_finished",
    "num_cached_tokens",
    "blocks_used",
    "blocks_cached",
)
# Sums over a bin, and states at its end; the lanes are made of these and of the samples.
_SUMS = ("tokens", "cached_tokens", "prompt_tokens", "gap_s")
_STATES = ("running", "waiting", "held", "cached", "left")


class Lanes:
    """Bins of ``bin_s`` seconds; bin ``k`` is [k, k + 1) * bin_s, counted from ``started_at``.

    >>> lanes = Lanes(num_blocks=8, bin_s=1.0)
    >>> lanes.add_tokens(sent_s=[0.2, 0.4, 1.5], itl_s=[math.nan, 0.2, 1.1])
    >>> lanes.table(0, 2)["output_tokens_per_s"].tolist()
    [2.0, 1.0]

    Args:
        num_blocks: Of the KV cache; what the shares held and cached are shares of.
        bin_s: The length of a bin in seconds.
        keep: Bins that are kept; older ones are forgotten, and rows for them ignored.
    """

    def __init__(self, *, num_blocks: int, bin_s: float = 0.25, keep: int = 14_400) -> None:
        self.bin_s = bin_s
        self.num_bins = 0  # one past the last bin that anything fell into
        self._num_blocks = max(1, num_blocks)
        self._keep = keep
        self._first = 0  # the bin of the arrays' first row
        size = min(1024, 2 * keep)
        self._sums = {name: np.zeros(size) for name in _SUMS}
        self._states = {name: np.full(size, np.nan) for name in _STATES}
        self._samples: dict[str, dict[int, list[Any]]] = {"ttft": {}, "itl": {}}
        self._quantiles: dict[str, dict[int, Any]] = {"ttft": {}, "itl": {}}

    @property
    def first_bin(self) -> int:
        """The oldest bin that is kept."""
        return max(0, self.num_bins - self._keep)

    def add_steps(self, steps: pd.DataFrame) -> None:
        """Take rows of the ``steps`` table, in order, each once."""
        if not len(steps):
            return
        values = {name: np.asarray(steps[name], dtype=float) for name in STEP_COLUMNS}
        start_s, gap_s = values["start_s"], values["host_gap_s"]
        bins = self._bins(start_s + values["duration_s"])
        rows, inside = self._rows(bins)
        self._add("cached_tokens", rows, values["num_cached_tokens"][inside])
        self._add("prompt_tokens", rows, values["num_prompt_tokens"][inside])
        self._add_gaps(start_s - gap_s, gap_s)
        states = {
            "running": values["num_running"],
            "waiting": values["num_waiting"],
            "held": values["blocks_used"],
            "cached": values["blocks_cached"],
            # A step counts the requests that it ran; those that ended in it are gone afterwards.
            "left": values["num_running"] - values["num_finished"],
        }
        for name, state in states.items():
            self._states[name][rows] = state[inside]  # of several in one bin the last one stays

    def add_tokens(self, *, sent_s: Any, itl_s: Any) -> None:
        """Take output tokens: when each was sent, and seconds since the one before (or NaN)."""
        bins = self._bins(np.asarray(sent_s, dtype=float))
        rows, inside = self._rows(bins)
        self._add("tokens", rows, 1.0)
        self._add_samples("itl", bins[inside], np.asarray(itl_s, dtype=float)[inside])

    def add_ttft(self, *, first_token_s: Any, ttft_s: Any) -> None:
        """Take first tokens: when each was sent, and how long its request had waited for it."""
        bins = self._bins(np.asarray(first_token_s, dtype=float))
        _, inside = self._rows(bins)
        self._add_samples("ttft", bins[inside], np.asarray(ttft_s, dtype=float)[inside])

    def table(self, first: int, end: int) -> dict[str, np.ndarray]:
        """Return each lane over the bins [first, end), float64; and ``time_s``, their starts."""
        sums = {name: self._window(values, first, end, 0.0) for name, values in self._sums.items()}
        states = self._carried(first, end)
        prompt = sums["cached_tokens"] + sums["prompt_tokens"]
        lanes = {
            "time_s": np.arange(first, end) * self.bin_s,
            "output_tokens_per_s": sums["tokens"] / self.bin_s,
            "num_running": states["running"],
            "num_waiting": states["waiting"],
        }
        for kind in ("ttft", "itl"):
            both = self._percentiles(kind, first, end)
            lanes[f"{kind}_p50_s"], lanes[f"{kind}_p99_s"] = both
        lanes["kv_held"] = states["held"] / self._num_blocks
        lanes["kv_cached"] = states["cached"] / self._num_blocks
        lanes["prefix_hit_rate"] = np.divide(
            sums["cached_tokens"], prompt, out=np.full(end - first, np.nan), where=prompt > 0
        )
        lanes["host_busy"] = np.minimum(1.0, sums["gap_s"] / self.bin_s)
        return lanes

    # ---- inside

    def _bins(self, times_s: np.ndarray) -> np.ndarray:
        """Return the bin of each moment, and make room for the latest."""
        bins = np.floor(np.maximum(times_s, 0.0) / self.bin_s).astype(np.int64)
        if bins.size:
            self.num_bins = max(self.num_bins, int(bins.max()) + 1)
            self._make_room()
        return bins

    def _rows(self, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return places in the arrays, and which of the bins are still kept."""
        inside = bins >= self._first
        return bins[inside] - self._first, inside

    def _make_room(self) -> None:
        arrays = {**self._sums, **self._states}
        size = len(arrays["tokens"])
        if self.num_bins - self._first <= size:
            return
        first = max(self._first, self.first_bin)
        new_size = max(size, 2 * min(self._keep, self.num_bins - first))
        old = self._first
        for kind, empty in ((self._sums, 0.0), (self._states, np.nan)):
            for name, values in kind.items():
                kept = values[min(size, first - old) :]
                kind[name] = np.full(new_size, empty)
                kind[name][: len(kept)] = kept
            if kind is self._states and first > old:  # what held before the first row goes on
                for name, value in self._last_before(arrays, first - old).items():
                    if math.isnan(kind[name][0]):
                        kind[name][0] = value
        self._first = first
        for kept_bins in (*self._samples.values(), *self._quantiles.values()):
            for old_bin in [k for k in kept_bins if k < first]:
                del kept_bins[old_bin]

    @staticmethod
    def _last_before(arrays: dict[str, np.ndarray], row: int) -> dict[str, float]:
        known = np.flatnonzero(~np.isnan(arrays["running"][:row]))
        return {name: arrays[name][known[-1]] if known.size else math.nan for name in _STATES}

    def _add(self, name: str, rows: np.ndarray, values: Any) -> None:
        np.add.at(self._sums[name], rows, values)

    def _add_gaps(self, start_s: np.ndarray, gap_s: np.ndarray) -> None:
        """Share out the time for which work stood still over the bins it covers."""
        some = gap_s > 0
        start_s, gap_s = np.maximum(0.0, start_s[some]), gap_s[some]
        end_s = start_s + gap_s
        first, last = start_s // self.bin_s, end_s // self.bin_s
        within = first == last  # nearly all; the others one by one
        rows, inside = self._rows(first[within].astype(np.int64))
        self._add("gap_s", rows, gap_s[within][inside])
        for start, end in zip(start_s[~within], end_s[~within], strict=True):
            bins = np.arange(start // self.bin_s, end // self.bin_s + 1, dtype=np.int64)
            edges = np.clip(np.append(bins, bins[-1] + 1) * self.bin_s, start, end)
            rows, inside = self._rows(bins)
            self._add("gap_s", rows, np.diff(edges)[inside])

    def _add_samples(self, kind: str, bins: np.ndarray, values: np.ndarray) -> None:
        known = ~np.isnan(values)
        bins, values = bins[known], values[known]
        order = np.argsort(bins, kind="stable")
        bins, values = bins[order], values[order]
        starts = np.flatnonzero(np.diff(bins, prepend=-1))
        for start, part in zip(starts, np.split(values, starts[1:]), strict=False):
            k = int(bins[start])
            self._samples[kind].setdefault(k, []).append(part)
            self._quantiles[kind].pop(k, None)

    def _percentiles(self, kind: str, first: int, end: int) -> np.ndarray:
        """Return p50 and p99 per bin, [2, bins]; each is computed once per change of its bin."""
        result = np.full((2, end - first), np.nan)
        samples, quantiles = self._samples[kind], self._quantiles[kind]
        for k in [k for k in samples if first <= k < end]:
            if k not in quantiles:
                samples[k] = [np.concatenate(samples[k])]
                quantiles[k] = np.percentile(samples[k][0], (50, 99))
            result[:, k - first] = quantiles[k]
        return result

    def _carried(self, first: int, end: int) -> dict[str, np.ndarray]:
        """Return states; between two steps what the last one left goes on. 0 before the first."""
        known = np.flatnonzero(~np.isnan(self._states["running"]))
        wanted: np.ndarray = np.arange(first, end) - self._first
        places = np.searchsorted(known, wanted, side="right") - 1
        if not known.size:
            return {name: np.zeros(end - first) for name in _STATES}
        rows = known[np.maximum(places, 0)]
        carried = {name: np.where(places < 0, 0.0, self._states[name][rows]) for name in _STATES}
        carried["running"] = np.where(rows == wanted, carried["running"], carried["left"])
        return carried

    def _window(self, values: np.ndarray, first: int, end: int, empty: float) -> np.ndarray:
        """Return the rows of the bins [first, end), wherever they lie."""
        window = np.full(end - first, empty)
        low, high = max(first, self._first), min(end, self._first + len(values))
        if low < high:
            window[low - first : high - first] = values[low - self._first : high - self._first]
        return window
