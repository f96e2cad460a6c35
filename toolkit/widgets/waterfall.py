"""Waterfall: one request's life as bars, with the batch that it shared its steps with below."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.widgets.base import Widget
from toolkit.widgets.fallback import new_figure
from toolkit.widgets.palette import LIGHT
from toolkit.widgets.source import open_source

__all__ = ["Waterfall"]

_PERIOD_S = 1.0  # while the request runs: each time its whole life is worked out anew
_NUM_RESPONSIBLE = 6
# The colours of the tokens in a step, as record.why paints them too, and what they are called.
_BATCH = {
    "own_tokens": ("text", "this request"),
    "mates_prompt_tokens": ("prefill", "others' prompts"),
    "mates_decode_tokens": ("decode", "others' decoding"),
}
_COLUMNS = ("start_s", "duration_s", "step", "token_budget", *_BATCH)


class Waterfall(Widget):
    """Where one request's time went; arrows go to the next and the previous request.

    >>> Waterfall(record, "chatcmpl-...")                            # doctest: +SKIP

    Args:
        source: An LLM, an engine, a server, a run, a record or the path of one; it must keep
            chunks, so its level is "tokens" or higher.
        request_id: A request, an answer ("chatcmpl-...") or a client's X-Request-Id; by default the
            last request.
        sort: What next and previous go by: a column of ``requests``, "arrival_s" by default.

    Raises:
        UnknownRequest: the record has no such request.
        InvalidConfig: it has none at all, or its requests have no column ``sort``.
    """

    _esm = Path(__file__).parent / "waterfall.js"

    def __init__(
        self, source: Any, request_id: str | None = None, *, sort: str = "arrival_s"
    ) -> None:
        self._source = open_source(source)
        self._sort = sort
        self._due_s = 0.0
        self._is_over = False
        self.why: Any = None
        names = self._ids()
        if not names:
            raise InvalidConfig("the record has no request yet; make one first")
        self.why = self._source.record.why(names[-1] if request_id is None else request_id)
        super().__init__()
        self.on_message("step", lambda message: self.step(int(message["by"])))
        self.on_message("show", lambda message: self.show(str(message["request_id"])))

    @property
    def request_id(self) -> str:
        """The request that is shown."""
        return str(self.why.request_id)

    @property
    def data(self) -> pd.DataFrame:
        """The spans that are shown, a row each."""
        return self.why.spans

    def show(self, request_id: str) -> None:
        """Show another request, by any id that it has."""
        self.why = self._source.record.why(request_id)
        self._send_request()

    def step(self, by: int) -> None:
        """Go ``by`` requests further, or back; at either end nothing happens."""
        names = self._ids()
        index = names.index(self.request_id) + by
        if 0 <= index < len(names):
            self.show(names[index])

    # ---- frames

    @property
    def is_live(self) -> bool:
        """Whether the request's life goes on."""
        return self._source.is_live and not self._is_over

    def full_frame(self) -> None:
        """Send the request."""
        self._send_request()

    def tick(self) -> None:
        """Send the request as it is by now."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + _PERIOD_S
            self.show(self.request_id)

    def _ids(self) -> list[str]:
        """Return all requests in the order of next and previous; see whether this one has ended."""
        requests = self._source.record.requests
        if self._sort not in requests:
            raise InvalidConfig(
                f"sort={self._sort!r} is no column of requests; there are "
                + ", ".join(map(str, requests.columns))
            )
        if self.why is not None:
            mine = requests[requests.request_id == self.request_id]
            self._is_over = bool(mine.finished_s.notna().all())
        names = requests.sort_values(self._sort, kind="stable").request_id
        return [str(name) for name in names]

    def _send_request(self) -> None:
        spans, batch, causes = self.why.spans, self.why.batch, self.why.causes
        names = self._ids()
        origin_s = float(spans.start_s.iloc[0]) if len(spans) else 0.0
        meta = {
            "request_id": self.request_id,
            "sentence": self.why.sentence,
            "index": names.index(self.request_id),
            "num": len(names),
            "origin_s": origin_s,
            "rows": _row_names(spans),
            "first_token_s": _first_token_s(spans, origin_s),
            "causes": [
                [str(part), float(seconds), float(share)]
                for part, seconds, share in zip(
                    causes.part, causes.seconds, causes.share, strict=True
                )
                if seconds > 0
            ],
            "responsible": [
                [str(row.request_id), str(row.role), float(row.seconds), int(row.tokens)]
                for row in self.why.responsible.head(_NUM_RESPONSIBLE).itertuples()
            ],
        }
        arrays = {
            f"span_{name}": spans[name].to_numpy(dtype=float) - origin_s
            for name in ("start_s", "end_s")
        }
        arrays["span_tokens"] = spans.num_tokens.to_numpy(dtype=float)
        arrays |= {f"batch_{name}": batch[name].to_numpy(dtype=float) for name in _COLUMNS}
        arrays["batch_start_s"] = arrays["batch_start_s"] - origin_s
        self.send_frame("waterfall", meta, **arrays)

    # ---- without a page

    def static_html(self) -> str:
        """Return the waterfall as ``record.why(...)`` shows it."""
        return str(self.why._repr_html_())

    def figure(self) -> Any:
        """Return bars over time, a row per kind, and the batch below."""
        spans, batch = self.why.spans, self.why.batch
        rows = list(dict.fromkeys(_row_names(spans)))
        figure = new_figure(9, 2.2 + 0.25 * len(rows))
        bars, lane = figure.subplots(2, 1, sharex=True, height_ratios=(0.25 * len(rows) + 0.4, 1.2))
        origin_s = float(spans.start_s.iloc[0]) if len(spans) else 0.0
        places = [rows.index(name) for name in _row_names(spans)]
        colours = [LIGHT.get(name, LIGHT["muted"]) for name in _row_names(spans)]
        widths = (spans.end_s - spans.start_s).to_numpy(dtype=float)
        bars.barh(places, widths, left=spans.start_s - origin_s, color=colours, height=0.8)
        bars.set_yticks(range(len(rows)), [name.replace("_", " for ") for name in rows], fontsize=8)
        bars.invert_yaxis()
        bars.set_title(self.why.sentence, fontsize=8, loc="left", wrap=True)
        below = np.zeros(len(batch))
        for column, (colour, label) in _BATCH.items():
            tokens = batch[column].to_numpy(dtype=float)
            lane.bar(
                batch.start_s - origin_s, tokens, batch.duration_s, align="edge", bottom=below,
                color=LIGHT[colour], label=label,
            )  # fmt: skip
            below = below + tokens
        lane.set_ylabel("tokens in step", fontsize=8)
        lane.set_xlabel("time since its arrival (s)", fontsize=8)
        lane.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        for axis in (bars, lane):
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        return figure

    def __repr__(self) -> str:
        return f"Waterfall({self.request_id}: {len(self.why.spans)} spans)"


def _row_names(spans: pd.DataFrame) -> list[str]:
    """Return the row that each span is drawn in, which is also its colour's name."""
    return [
        f"wait_{cause}" if kind == "wait" else str(kind)
        for kind, cause in zip(spans.kind, spans.cause, strict=True)
    ]


def _first_token_s(spans: pd.DataFrame, origin_s: float) -> float | None:
    """Return when decoding began, seconds after the arrival; None if it has not."""
    decoding = spans.loc[spans.kind == "decode", "start_s"]
    return float(decoding.iloc[0]) - origin_s if len(decoding) else None
