"""Show requests as rows of time: what each waited for, computed, lost; and the steps below."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidParameter, ToolkitError
from toolkit.widgets.base import Widget
from toolkit.widgets.fallback import legend, new_figure
from toolkit.widgets.palette import LIGHT
from toolkit.widgets.source import open_source
from toolkit.widgets.timeline_picture import timeline_html
from toolkit.widgets.timeline_rows import (
    KINDS,
    lane_arrays,
    over_steps,
    request_arrays,
    span_arrays,
    span_kinds,
    span_name,
    tag_codes,
)

__all__ = ["Timeline"]

# Draws in under three seconds; the eye takes in fewer.
_MAX_REQUESTS = 2000
_MAX_STEPS = 200_000
_MAX_FIGURE_ROWS = 200
# What an engine in another process recorded comes by HTTP: once a second is enough to ask.
_REMOTE_PERIOD_S = 1.0


class Timeline(Widget):
    """Each request's life as a row of spans, over seconds or steps.

    Thin bars wait, and their colour says for what; full bars compute. The wheel zooms, dragging
    pans, the arrow keys go through steps and rows, a click shows why a request was slow, and
    Shift with a drag, or Shift with the up and down keys, selects.

    Args:
        source: An LLM, Engine, Server, Run, Record, or the path of a saved record.
        sort: "arrival", "ttft" or the name of a tag.
        x: "seconds" or "steps".
        max_requests: The newest that many are shown.

    Raises:
        InvalidParameter: there is no such ``x``, or no request has a tag of the name ``sort``.
    """

    _esm = Path(__file__).parent / "timeline.js"

    def __init__(
        self,
        source: Any,
        *,
        sort: str = "arrival",
        x: str = "seconds",
        max_requests: int = _MAX_REQUESTS,
    ) -> None:
        if x not in ("seconds", "steps"):
            raise InvalidParameter(f"x={x!r}: a timeline runs over 'seconds' or 'steps'")
        self.source = open_source(source)
        self._record = self.source.whole_record
        self._require_sort(sort)
        self._sort, self._x, self._max_requests = sort, x, max_requests
        self._selected: list[str] = []
        self._open: set[str] = set()  # requests that had not ended when they were last sent
        self._newest_s = float("-inf")  # the arrival of the newest request that was sent
        self._cursor = 0  # of the steps that were sent
        self._seen: tuple[int, ...] = ()
        self._due_s = 0.0
        self._generation = 0  # of the record: after a rewind, rows that were sent are no more
        super().__init__()
        self.on_message("why", lambda message: self._explain(str(message["request_id"])))
        self.on_message("select", lambda message: self._select(message["request_ids"]))

    def _require_sort(self, sort: str) -> None:
        if sort in ("arrival", "ttft"):
            return
        requests = self._record.requests
        tags = [name[5:] for name in requests.columns if name.startswith("tags.")]
        # Before the first request nobody knows what tags there will be.
        if sort not in tags and len(requests):
            known = ", ".join(map(repr, ["arrival", "ttft", *tags]))
            raise InvalidParameter(f"sort={sort!r}: no request has such a tag; there are {known}")

    # ---- what is shown

    @property
    def data(self) -> pd.DataFrame:
        """The spans that are shown: a row for each stretch of a request's life."""
        return self._record.spans(list(self._requests()["request_id"]))

    @property
    def selection(self) -> pd.DataFrame:
        """The rows of the record's ``requests`` that were brushed; without a brush, none."""
        requests = self._record.requests
        return requests[requests["request_id"].isin(self._selected)].reset_index(drop=True)

    def select(self, request_ids: list[str]) -> None:
        """Select requests from Python; the page marks them."""
        self._selected = list(request_ids)
        self.send_frame("selection", {"request_ids": self._selected})

    def _requests(self) -> pd.DataFrame:
        requests = self._record.requests.sort_values("arrival_s", kind="stable")
        return requests.tail(self._max_requests).reset_index(drop=True)

    # ---- frames and actions

    @property
    def is_live(self) -> bool:
        """Whether the engine may go on."""
        return self.source.is_live

    def full_frame(self) -> None:
        """Send every row and every step that is kept."""
        self._generation = getattr(self._record, "generation", 0)
        requests = self._requests()
        steps, self._cursor = self._record.since("steps", 0)
        if len(requests):
            steps = steps[steps["start_s"] + steps["duration_s"] >= requests["arrival_s"].min()]
        self._send_rows("all", requests, steps.tail(_MAX_STEPS))
        self.send_frame("selection", {"request_ids": self._selected})

    def tick(self) -> None:
        """Send the rows of requests that live or have just ended, and the new steps."""
        if not self._is_news():
            return
        if self._generation != getattr(self._record, "generation", 0):
            self._newest_s = float("-inf")
            self.refresh()
            return
        requests = self._requests()
        is_new = requests["arrival_s"] > self._newest_s
        requests = requests[is_new | requests["request_id"].isin(self._open)]
        steps, self._cursor = self._record.since("steps", self._cursor)
        self._send_rows("more", requests.reset_index(drop=True), steps)

    def _is_news(self) -> bool:
        """Say whether anything can have happened since the last time that there were news."""
        engine = self.source.engine
        if not hasattr(engine, "scheduler"):  # it is asked by HTTP, and so not often
            now_s = time.monotonic()
            is_due = now_s >= self._due_s
            self._due_s = now_s + _REMOTE_PERIOD_S if is_due else self._due_s
            return is_due
        seen = (engine.step_number, engine.scheduler.num_running, engine.scheduler.num_waiting)
        is_news, self._seen = seen != self._seen, seen
        return is_news

    def _send_rows(self, kind: str, requests: pd.DataFrame, steps: pd.DataFrame) -> None:
        ids = list(requests["request_id"])
        note, spans = "", None
        try:
            spans = self._record.spans(ids)
        except ToolkitError as error:  # the record's level is too low
            note, ids, requests = str(error), [], requests.head(0)
        meta = {
            "request_ids": ids,
            "tags": tag_codes(requests),
            "sort": self._sort,
            "x": self._x,
            "max": self._max_requests,
            "num_requests": self._record.num_rows("requests"),
            "live": self.is_live,
            "note": note,
        }
        arrays = request_arrays(requests) | lane_arrays(steps, self._record.num_blocks or 0)
        if spans is not None:
            arrays |= span_arrays(spans, ids)
        if len(requests):
            self._newest_s = max(self._newest_s, float(requests["arrival_s"].max()))
            self._open = set(requests["request_id"][requests["finished_s"].isna()])
        self.send_frame(kind, meta, **arrays)

    def _explain(self, request_id: str) -> None:
        html = self._record.why(request_id)._repr_html_()
        self.send_frame("why", {"request_id": request_id, "html": html})

    def _select(self, request_ids: list[str]) -> None:
        self._selected = [str(name) for name in request_ids]

    # ---- without a page

    def figure(self) -> Any:
        """Return the rows and both lanes as a matplotlib Figure."""
        from matplotlib.patches import Patch

        requests = self._ordered().tail(_MAX_FIGURE_ROWS).reset_index(drop=True)
        spans = self._spans(list(requests["request_id"]))
        num_rows = len(requests)
        figure = new_figure(8, 2.6 + min(6.0, 0.2 * num_rows))
        rows, tokens, blocks = figure.subplots(
            3, 1, sharex=True, height_ratios=[max(1.0, min(6.0, 0.2 * num_rows)), 0.5, 0.5]
        )
        kinds = span_kinds(spans)
        places = pd.Index(requests["request_id"]).get_indexer(spans["request_id"])
        for place in sorted(set(kinds)):
            chosen = kinds == place
            thickness = 0.4 if KINDS[place].startswith("wait") else 0.8
            rows.barh(
                places[chosen],
                (spans["end_s"] - spans["start_s"])[chosen],
                left=spans["start_s"][chosen],
                height=thickness,
                color=LIGHT[KINDS[place]],
            )
        rows.set(ylim=(num_rows - 0.4, -0.6), ylabel="request")
        if 0 < num_rows <= 25:
            rows.set_yticks(range(num_rows), list(requests["request_id"]), fontsize=7)
        self._draw_lanes(tokens, blocks)
        blocks.set_xlabel("step" if self._x == "steps" else "seconds since the record began")
        handles = [
            Patch(color=LIGHT[KINDS[place]], label=span_name(KINDS[place]))
            for place in sorted(set(kinds))
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=6, fontsize=7, frameon=False)
        return figure

    def _ordered(self) -> pd.DataFrame:
        requests = self._requests()
        by = {"arrival": "arrival_s", "ttft": "ttft_s"}.get(self._sort, f"tags.{self._sort}")
        if by not in requests.columns:
            return requests
        return requests.sort_values(by, kind="stable", key=_sortable)

    def _draw_lanes(self, tokens: Any, blocks: Any) -> None:
        lanes = self._lanes()
        where = {"x": lanes["step_start"], "step": "post", "linewidth": 0}
        tokens.fill_between(y1=lanes["step_tokens"], color=LIGHT["prefill"], **where)
        tokens.step(lanes["step_start"], lanes["budget"], where="post", color=LIGHT["muted"], lw=1)
        tokens.set(ylim=(0, None), ylabel="tokens\nper step")
        blocks.fill_between(y1=lanes["kv_percent"], color=LIGHT["decode"], **where)
        blocks.set(ylim=(0, 100), ylabel="KV in %")

    def static_html(self) -> str:
        """Return the rows as a picture; a record without any says so."""
        try:
            requests = self._ordered().tail(_MAX_FIGURE_ROWS)
            if requests.empty:
                return "<p>No request yet.</p>"
            return self._picture(list(requests["request_id"]))
        except ToolkitError as error:
            return f"<p>{escape(str(error))}</p>"

    def _picture(self, request_ids: list[str]) -> str:
        spans = self._spans(request_ids)
        if spans.empty:
            return "<p>No step yet.</p>"
        low, high = float(spans["start_s"].min()), float(spans["end_s"].max())
        lanes = self._lanes()
        inside = (lanes["step_start"] <= high) & (lanes["step_start"] + lanes["step_s"] >= low)
        lanes = {name: values[inside] for name, values in lanes.items()}
        unit = "step" if self._x == "steps" else "s"
        image = timeline_html(request_ids, spans, lanes, low=low, high=high, unit=unit)
        caption = (
            f"{len(request_ids)} of {self._record.num_rows('requests')} requests by {self._sort}; "
            "below, tokens against the budget, and KV in %"
        )
        names = [KINDS[place] for place in sorted(set(span_kinds(spans)))]
        key = legend((span_name(name), LIGHT[name]) for name in names)
        return f"<div><b>{escape(caption)}</b></div>{image}{key}"

    def _spans(self, request_ids: list[str]) -> pd.DataFrame:
        """Return spans over what the columns are: "start_s" is a step where they are steps."""
        spans: pd.DataFrame = self._record.spans(request_ids)
        return over_steps(spans) if self._x == "steps" else spans

    def _lanes(self) -> dict[str, Any]:
        lanes = lane_arrays(self._record.steps.tail(_MAX_STEPS), self._record.num_blocks or 0)
        if self._x == "steps":
            lanes["step_start"] = lanes["step"].astype(float)
            lanes["step_s"] = np.ones_like(lanes["step_s"])
        return lanes

    def __repr__(self) -> str:
        return f"Timeline({self._record.num_rows('requests')} requests)"


def _sortable(column: pd.Series) -> pd.Series:
    """Numbers by size, anything else by its letters."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().any() else column.astype(str)
