"""Follow a record into bins: each row is read once, whatever it is that keeps the record."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pandas as pd

from toolkit.clock import WallClock
from toolkit.widgets.lanes import Lanes
from toolkit.widgets.source import Source

__all__ = ["LaneReader"]

_BIN_S = 0.25
# Of a saved record all is shown, in bins that grow with it; four lanes of a screen are no wider.
_MAX_BINS = 14_400


class LaneReader:
    """The bins of a source, up to date after each ``read()``.

    Args:
        source: Whose record is read.
        window_s: How much of a live record is wanted, at its end, in seconds.
    """

    def __init__(self, source: Source, window_s: float) -> None:
        self._source = source
        self._record = source.record
        clock = getattr(source.engine, "clock", None)
        # Real time goes on while nothing happens; a simulator's does not.
        self._is_real = source.is_live and (clock is None or isinstance(clock, WallClock))
        self._cursors = {"steps": 0, "tokens": 0}
        self._last_s = 0.0  # the latest moment that was recorded, and when it was read
        self._read_at_s = time.monotonic()
        self._has_tokens = False
        self._window_s = window_s
        bin_s = _BIN_S
        if not source.is_live:
            span_s = _end_s(self._record)
            bin_s *= 2 ** max(0, math.ceil(math.log2(max(1e-9, span_s) / (_BIN_S * _MAX_BINS))))
        keep = math.ceil(2 * window_s / bin_s) if source.is_live else _MAX_BINS
        self.lanes = Lanes(num_blocks=self._record.num_blocks or 1, bin_s=bin_s, keep=keep)
        self._waiting_first: set[str] = set()  # had a first token; its wait is not known yet

    @property
    def now_s(self) -> float:
        """Where the record's time is now, in seconds since it began."""
        if not self._is_real:
            return self._last_s
        return self._last_s + time.monotonic() - self._read_at_s

    def read(self) -> None:
        """Take in what was recorded since the last call."""
        steps, self._cursors["steps"] = self._record.since("steps", self._cursors["steps"])
        if not steps.empty:
            self.lanes.add_steps(steps)
            last = steps.iloc[-1]
            self._see(float(last.start_s + last.duration_s))
        if "tokens" not in self._record.tables:
            return
        tokens, self._cursors["tokens"] = self._record.since("tokens", self._cursors["tokens"])
        if not tokens.empty:
            self.lanes.add_tokens(sent_s=tokens.sent_s, itl_s=tokens.itl_s)
            self._see(float(tokens.sent_s.iloc[-1]))
            self._add_first(tokens)

    def window(self) -> tuple[int, int]:
        """Return the bins to show, [first, end): the last seconds, or all of a saved record."""
        if not self._source.is_live:
            return self.lanes.first_bin, max(1, self.lanes.num_bins)
        end = math.floor(self.now_s / self.lanes.bin_s) + 1
        return end - math.ceil(self._window_s / self.lanes.bin_s), end

    def table(self) -> pd.DataFrame:
        """Return the bins to show; those before the record's beginning are left out."""
        first, end = self.window()
        return pd.DataFrame(self.lanes.table(max(0, first), end))

    # ---- inside

    def _see(self, time_s: float) -> None:
        if time_s > self._last_s:
            self._last_s, self._read_at_s = time_s, time.monotonic()

    def _add_first(self, tokens: pd.DataFrame) -> None:
        first = tokens.loc[tokens["index"].to_numpy() == 0, "request_id"]
        self._waiting_first.update(first)
        if not self._waiting_first:
            return
        found = _first_tokens(self._record, self._waiting_first)
        self.lanes.add_ttft(first_token_s=found.first_token_s, ttft_s=found.ttft_s)
        # What is not among the requests was forgotten by the record: it will not come back.
        self._waiting_first.clear()


def _first_tokens(record: Any, names: set[str]) -> pd.DataFrame:
    requests = record.requests
    return requests[requests.request_id.isin(names)]


def _end_s(record: Any) -> float:
    steps = record.tail("steps", 1)
    return float(steps.start_s.iloc[0] + steps.duration_s.iloc[0]) if len(steps) else 0.0


def as_matrix(table: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Return lanes as one array to send, [lanes, bins] float32."""
    return np.stack([table[name] for name in names]).astype(np.float32)
