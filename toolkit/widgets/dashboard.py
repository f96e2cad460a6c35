"""Dashboard: throughput, queue, latency and cache of an engine over the last minute, live."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.widgets import dashboard_figure
from toolkit.widgets.base import Widget
from toolkit.widgets.fallback import picture, small_png
from toolkit.widgets.lane_reader import LaneReader, as_matrix
from toolkit.widgets.lanes import LANES
from toolkit.widgets.load_switch import LoadSwitch
from toolkit.widgets.source import open_source

__all__ = ["Dashboard"]

# What an engine in another process recorded comes by HTTP: once a second is enough to ask.
_REMOTE_PERIOD_S = 1.0


class Dashboard(Widget):
    """The last minute of a live engine, or all of a recorded one, under one cursor.

    Drag over the lanes, and ``dashboard.selection`` is the table of the requests that lived then.

    >>> Dashboard(server)                                            # doctest: +SKIP

    Args:
        source: An LLM, an engine, a server, a run, a record or the path of one.
        load: ``load(stop)`` to start and stop from here; it returns once the event is set.
        window_s: How much of a live record is shown, in seconds.
    """

    _esm = Path(__file__).parent / "dashboard.js"
    _switch: LoadSwitch | None = None

    def __init__(
        self,
        source: Any,
        *,
        load: Callable[[Any], object] | None = None,
        window_s: float = 60.0,
    ) -> None:
        self._source = open_source(source)
        self._window_s = window_s
        self._reader = LaneReader(self._source, window_s)
        if load is not None:
            self._switch = LoadSwitch(load)
        self._is_paused = False
        self._brush: tuple[float, float] | None = None
        self._shown: tuple[Any, ...] = ()
        self._due_s = 0.0
        self.snapshots: list[pd.DataFrame] = []
        super().__init__()
        self.on_message("select", lambda message: self.select(message["a_s"], message["b_s"]))
        self.on_message("clear", lambda message: self.clear_selection())
        self.on_message("pause", lambda message: self.pause())
        self.on_message("resume", lambda message: self.resume())
        self.on_message("load", lambda message: self._switch_load(bool(message["on"])))
        self.on_message("snapshot", lambda message: self._keep_snapshot())

    # ---- tables

    @property
    def data(self) -> pd.DataFrame:
        """A row per bin that is shown: ``time_s``, where it begins, and a column per lane."""
        return self.snapshot()

    def snapshot(self) -> pd.DataFrame:
        """Return the lanes as they are now; times in seconds, shares between 0 and 1."""
        with self._work:
            self._reader.read()
            return self._reader.table()

    @property
    def selection(self) -> pd.DataFrame:
        """The requests that lived in the time that is marked; all where none is."""
        requests = self._source.record.requests
        if self._brush is None:
            return requests
        a_s, b_s = self._brush
        # An unfinished request has no end, and lives on.
        return requests[(requests.arrival_s <= b_s) & ~(requests.finished_s.astype(float) < a_s)]

    # ---- actions

    def select(self, a_s: float, b_s: float) -> pd.DataFrame:
        """Mark the time between two moments; return its requests.

        Args:
            a_s: Seconds since the record began, as in its tables. The axis of a live view counts
                back from now instead; ``data.time_s.max()`` is about now.
            b_s: The other end, likewise.
        """
        self._brush = (min(a_s, b_s), max(a_s, b_s))
        self._send_selection()
        return self.selection

    def clear_selection(self) -> None:
        """Mark nothing."""
        self._brush = None
        self._send_selection()

    def pause(self) -> None:
        """Hold the view still, and read nothing; the engine runs on."""
        self._is_paused = True
        self._send_lanes()

    def resume(self) -> None:
        """Follow the engine again."""
        self._is_paused = False
        self._send_lanes()

    def start_load(self) -> None:
        """Start the load that was passed in; nothing happens without one."""
        self._switch_load(True)

    def stop_load(self) -> None:
        """Stop the load."""
        self._switch_load(False)

    def close(self) -> None:
        """Stop the load, and take the widget off every page."""
        if self._switch is not None:
            self._switch.off()
        super().close()

    # ---- frames

    @property
    def is_live(self) -> bool:
        """Whether the view follows an engine."""
        return self._source.is_live and not self._is_paused

    def full_frame(self) -> None:
        """Send the lanes and the selection."""
        self._send_lanes()
        self._send_selection()

    def tick(self) -> None:
        """Send the lanes when a new bin has begun."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        is_local = hasattr(self._source.engine, "scheduler")
        self._due_s = now_s + (self._reader.lanes.bin_s if is_local else _REMOTE_PERIOD_S)
        self._send_lanes()

    def _send_lanes(self) -> None:
        reader = self._reader
        if not self._is_paused:
            reader.read()
            self._shown = (*reader.window(), reader.now_s)
        first, end, now_s = self._shown or (*reader.window(), reader.now_s)
        meta = {
            "lanes": list(LANES),
            "first": first,
            "bin_s": reader.lanes.bin_s,
            "now_s": now_s,
            "is_live": self._source.is_live,
            "is_paused": self._is_paused,
            "load": None if self._switch is None else self._switch.state(),
            "num_snapshots": len(self.snapshots),
        }
        self.send_frame("lanes", meta, lanes=as_matrix(reader.lanes.table(first, end), LANES))

    def _send_selection(self) -> None:
        if self._brush is None:
            self.send_frame("selection", {"a_s": None, "b_s": None})
            return
        chosen = self.selection
        a_s, b_s = self._brush
        meta: dict[str, Any] = {"a_s": a_s, "b_s": b_s, "num_requests": len(chosen)}
        for name in ("ttft_s", "e2e_s"):
            median = chosen[name].astype(float).median() if len(chosen) else math.nan
            meta[f"{name}_p50"] = None if math.isnan(median) else median
        self.send_frame("selection", meta)

    def _switch_load(self, is_wanted: bool) -> None:
        if self._switch is not None:
            (self._switch.on if is_wanted else self._switch.off)()
        self._send_lanes()

    def _keep_snapshot(self) -> None:
        self.snapshots.append(self.snapshot())
        self._send_lanes()

    # ---- without a page

    def figure(self) -> Any:
        """Return the lanes as a matplotlib Figure."""
        return dashboard_figure.draw(self.snapshot(), self._reader.lanes.bin_s, self._brush)

    def static_html(self) -> str:
        """Return the lanes as a picture that is small enough to be saved with the widget."""
        return picture(small_png(self.figure()), alt=repr(self))

    def __repr__(self) -> str:
        state = "live" if self._source.is_live else "recorded"
        return f"Dashboard({self._source.record!r}, {state})"
