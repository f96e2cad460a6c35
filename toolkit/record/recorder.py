"""Turn events into tables: a row per step, per request and per sampled token.

Recording appends tuples; a DataFrame is built when somebody asks for it. All times are seconds
since ``started_at``.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from toolkit.engine.events import (
    Aborted,
    EnginePaused,
    Failed,
    Finished,
    RequestAdded,
    StepFinished,
    StepReport,
)
from toolkit.errors import InvalidConfig
from toolkit.record.host_gap import HostGap
from toolkit.record.rows import REQUEST_COLUMNS, STEP_COLUMNS, request_row, step_row
from toolkit.request import Request

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Record"]

# Step, when its tokens were sampled and sent; their requests, places in the output, ids. Columns:
# an object per token would be one more for every full garbage collection to visit.
_StepTokens = tuple[int, float, float, tuple[str, ...], "array[int]", "array[int]"]

LEVELS = ("requests", "tokens")
# Tags become columns, and each has a cell in every row: clients may invent no more than these.
MAX_TAG_COLUMNS = 100
# About 100 bytes a row: 200 MB of tokens at the most.
MAX_TOKEN_ROWS = 2_000_000
MAX_STEP_ROWS = 1_000_000
MAX_FINISHED_REQUESTS = 200_000


class _Engine(Protocol):
    """What the recorder reads of an engine."""

    clock: Any
    scheduler: Any

    def on(self, kind: type[Any], listener: Callable[[Any], object]) -> Callable[[], None]:
        """Subscribe to events."""
        ...


class Record:
    """The tables of one engine, live.

    Memory is bounded: the oldest rows go first, and ``num_dropped`` says how many went.

    Args:
        level: "tokens" keeps a row per sampled token, "requests" does not.
        token_text: Makes the ``text`` column from token ids; None leaves it empty.
    """

    def __init__(
        self, *, level: str = "tokens", token_text: Callable[[int], str] | None = None
    ) -> None:
        self.level = level
        self.started_at = datetime.now(timezone.utc)
        self.tables = ("steps", "requests", "tokens")
        self.num_dropped = {"steps": 0, "requests": 0, "tokens": 0}
        self._token_text = token_text
        self._started_s = 0.0
        self._host_gap = HostGap()
        self._has_work: Callable[[], bool] = lambda: False
        self._steps: deque[tuple[Any, ...]] = deque()
        self._live: dict[str, Request] = {}
        self._finished: deque[dict[str, Any]] = deque()
        self._tokens: deque[_StepTokens] = deque()
        self._num_prompts: dict[str, int] = {}
        self._num_token_rows = 0

    @property
    def level(self) -> str:
        """How much is kept."""
        return self._level

    @level.setter
    def level(self, level: str) -> None:
        if level not in LEVELS:
            raise InvalidConfig(f"record.level={level!r} is not one of {', '.join(LEVELS)}")
        self._level = level

    def attach(self, engine: _Engine) -> None:
        """Subscribe to an engine's events; times count from now."""
        self.started_at = datetime.now(timezone.utc)
        self._started_s = engine.clock.now()
        self._has_work = lambda: engine.scheduler.has_work
        engine.on(EnginePaused, lambda event: self._host_gap.on_paused())
        engine.on(RequestAdded, self._on_added)
        engine.on(StepFinished, self._on_step)
        for kind in (Finished, Failed, Aborted):
            engine.on(kind, self._on_end)

    # ---- tables

    @property
    def steps(self) -> pd.DataFrame:
        """A row per step."""
        return _frame(list(self._steps), STEP_COLUMNS)

    @property
    def requests(self) -> pd.DataFrame:
        """A row per sample, unfinished ones included; the most frequent tags have columns."""
        live = [request_row(request, self._started_s) for request in list(self._live.values())]
        rows = sorted([*list(self._finished), *live], key=_arrival)
        tags = Counter(name for row in rows for name in row if name.startswith("tags."))
        columns = [*REQUEST_COLUMNS, *sorted(name for name, _ in tags.most_common(MAX_TAG_COLUMNS))]
        return _frame([tuple(row.get(name) for name in columns) for row in rows], columns)

    @property
    def tokens(self) -> pd.DataFrame:
        """A row per sampled token, in the order of sampling."""
        last_sent_s: dict[str, float] = {}
        rows = []
        for step, sampled_s, sent_s, names, indices, token_ids in list(self._tokens):
            for name, index, token_id in zip(names, indices, token_ids, strict=True):
                itl_s = sent_s - last_sent_s.get(name, float("nan"))
                num_prompt = self._num_prompts.get(name)
                position = None if num_prompt is None else num_prompt + index
                text = self._token_text(token_id) if self._token_text is not None else None
                what = (name, index, position, step, token_id, text)
                rows.append((*what, sampled_s, sent_s, itl_s))
            last_sent_s.update(dict.fromkeys(names, sent_s))
        return _frame(rows, TOKEN_COLUMNS)

    # ---- events

    def _on_added(self, event: RequestAdded) -> None:
        self._host_gap.on_added(event.time_s)
        self._live[event.request_id] = event.request
        self._num_prompts[event.request_id] = event.request.num_prompt_tokens

    def _on_step(self, event: StepFinished) -> None:
        report = event.report
        gap_s = self._host_gap.on_step(
            start_s=report.start_s, end_s=report.end_s, has_work=self._has_work()
        )
        self._steps.append(step_row(report, self._started_s, host_gap_s=gap_s))
        if len(self._steps) > MAX_STEP_ROWS:
            self._steps.popleft()
            self.num_dropped["steps"] += 1
        if self._level == "tokens" and report.updates:
            self._keep_tokens(report)

    def _keep_tokens(self, report: StepReport) -> None:
        sampled_s = report.end_s - report.update_s - self._started_s
        sent_s = report.end_s - self._started_s
        updates = report.updates
        names = tuple([update.request_id for update in updates for _ in update.token_ids])
        indices = [u.first_index + i for u in updates for i in range(len(u.token_ids))]
        token_ids = [token_id for update in updates for token_id in update.token_ids]
        self._tokens.append(
            (report.step, sampled_s, sent_s, names, array("q", indices), array("q", token_ids))
        )
        self._num_token_rows += len(names)
        while self._num_token_rows > MAX_TOKEN_ROWS:
            dropped = len(self._tokens.popleft()[3])
            self._num_token_rows -= dropped
            self.num_dropped["tokens"] += dropped

    def _on_end(self, event: Finished | Failed | Aborted) -> None:
        request = self._live.pop(event.request_id, None)
        if request is None:
            return
        self._finished.append(request_row(request, self._started_s))
        if len(self._finished) > MAX_FINISHED_REQUESTS:
            oldest = self._finished.popleft()
            self._num_prompts.pop(oldest["request_id"], None)
            self.num_dropped["requests"] += 1

    def __repr__(self) -> str:
        dropped = ", ".join(f"{count} {name}" for name, count in self.num_dropped.items() if count)
        return (
            f"Record(level={self._level!r}, {len(self._steps)} steps, "
            f"{len(self._live) + len(self._finished)} requests, {self._num_token_rows} tokens"
            + (f"; dropped as too old: {dropped})" if dropped else ")")
        )


TOKEN_COLUMNS = (
    "request_id",
    "index",
    "position",
    "step",
    "token_id",
    "text",
    "sampled_s",
    "sent_s",
    "itl_s",
)


def _arrival(row: dict[str, Any]) -> tuple[float, int]:
    return row["queued_s"] or 0.0, row["sample_index"]


def _frame(rows: list[tuple[Any, ...]], columns: Any) -> pd.DataFrame:
    # Imported here: pandas takes 0.4 s, which an engine that nobody asks for tables need not pay.
    import pandas as pd

    return pd.DataFrame.from_records(rows, columns=list(columns))
