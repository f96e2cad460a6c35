"""Follow a record into bins: each row is read once, whatever it is that keeps the record."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pandas as pd

from toolkit.clock import WallClock
from toolkit.widgets.lanes import STEP_COLUMNS, Lanes
from toolkit.widgets.source import Source

__all__ = ["LaneReader", "as_matrix"]

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
        self._window_s = window_s
        bin_s = _BIN_S
        if not source.is_live:
            span_s = _end_s(self._record)
            bin_s *= 2 ** max(0, math.ceil(math.log2(max(1e-9, span_s) / (_BIN_S * _MAX_BINS))))
        keep = math.ceil(2 * window_s / bin_s) if source.is_live else _MAX_BINS
        self.lanes = Lanes(num_blocks=self._record.num_blocks or 1, bin_s=bin_s, keep=keep)

    @property
    def now_s(self) -> float:
        """Where the record's time is now, in seconds since it began."""
        if not self._is_real:
            return self._last_s
        return self._last_s + time.monotonic() - self._read_at_s

    def read(self) -> None:
        """Take in what was recorded since the last call."""
        steps = self._new("steps", STEP_COLUMNS)
        if len(steps):
            self.lanes.add_steps(steps)
            self._see(float(steps.start_s.iloc[-1] + steps.duration_s.iloc[-1]))
        tokens = self._new("tokens", ("request_id", "index", "sent_s", "itl_s"))
        if len(tokens):
            self.lanes.add_tokens(sent_s=tokens.sent_s, itl_s=tokens.itl_s)
            self._see(float(tokens.sent_s.iloc[-1]))
            first = tokens[tokens["index"].to_numpy() == 0]
            ttft_s = self._record.ttft_s(first.request_id.tolist())
            waits_s = [ttft_s.get(name, math.nan) for name in first.request_id]
            self.lanes.add_ttft(first_token_s=first.sent_s, ttft_s=waits_s)

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

    def _new(self, table: str, columns: tuple[str, ...]) -> pd.DataFrame:
        rows, self._cursors[table] = self._record.since(table, self._cursors[table], columns)
        return rows


def _end_s(record: Any) -> float:
    steps = record.tail("steps", 1)
    return float(steps.start_s.iloc[0] + steps.duration_s.iloc[0]) if len(steps) else 0.0


def as_matrix(table: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Return lanes as one array to send, [lanes, bins] float32."""
    return np.stack([table[name] for name in names]).astype(np.float32)
