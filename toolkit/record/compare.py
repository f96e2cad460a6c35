"""Set two runs of one workload side by side, request by request: what changed, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import InvalidParameter, UnlikeRuns
from toolkit.html_table import rows_html
from toolkit.record.batch_mates import Tables
from toolkit.record.sentences import duration
from toolkit.record.spans import SpanTables, make_spans
from toolkit.request import WAIT_CAUSES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "compare_records"]

Array = np.ndarray[Any, Any]

_MEASURES = ("ttft_s", "e2e_s", "num_steps", "waited_s", "waited_steps", "num_preemptions")
# What makes two requests the same piece of work.
_ASKED = ("num_prompt_tokens", "max_tokens", "sample_index")
_MOST_SHOWN = 20
_MOMENT_S = 1e-6  # the ledger's own precision


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Requests of two runs in pairs, the largest difference first.

    ``table`` has a row per request: request_id, other_id, then ``_before``, ``_after`` and
    ``_difference`` (after - before) of ttft_s, e2e_s, num_steps, waited_s, waited_steps and
    num_preemptions, the waits being those before the first token; and ``why``, the change of its
    waits in steps, or what else took longer.
    """

    table: pd.DataFrame

    @property
    def changed(self) -> pd.DataFrame:
        """The rows of which ``why`` tells that the schedule changed."""
        return self.table[~self.table["why"].str.startswith((_SAME, _SAME_STEPS))]

    def plot(self, measure: str = "e2e_s") -> Any:
        """Draw the difference of a measure as a bar per request; return matplotlib's axes."""
        values = self.table.set_index("request_id")[f"{measure}_difference"].head(_MOST_SHOWN)
        axes = values.iloc[::-1].plot.barh()
        axes.set_xlabel(f"{measure}, after - before")
        return axes

    def summary(self) -> str:
        """Return in one line how many requests gained and lost, and how much on average."""
        gain_s = self.table["e2e_s_difference"].to_numpy("float64")
        known = gain_s[~np.isnan(gain_s)]
        faster, slower = int((known < -_MOMENT_S).sum()), int((known > _MOMENT_S).sum())
        mean = f", {_signed(float(known.mean()))} on average" if len(known) else ""
        return f"{len(self.table)} requests: {faster} faster, {slower} slower{mean}"

    def __repr__(self) -> str:
        lines = [
            f"  {row.request_id:<12} {_signed(row.e2e_s_difference):>11}  {row.why}"
            for row in self.table.head(_MOST_SHOWN).itertuples()
        ]
        return "\n".join([self.summary(), *lines])

    def _repr_html_(self) -> str:
        rows = [
            (
                row.request_id,
                _pair(row.ttft_s_before, row.ttft_s_after),
                _pair(row.e2e_s_before, row.e2e_s_after),
                _signed(row.e2e_s_difference),
                row.why,
            )
            for row in self.table.head(_MOST_SHOWN).itertuples()
        ]
        columns = ["request", "first token", "end", "difference", "why"]
        more = len(self.table) - len(rows)
        note = self.summary() + (f"; {more} more rows in .table" if more > 0 else "")
        return rows_html(columns, rows, note=note)


_SAME = "as before"
_SAME_STEPS = "same schedule"
_NOTICEABLE = 0.05  # of a request's time


def compare_records(before: SpanTables, after: SpanTables) -> Comparison:
    """Pair the requests of two runs and say of each what changed.

    They are paired by id where both runs have the same ids, else by order of arrival.

    Raises:
        UnlikeRuns: the runs did not have the same work: other prompts' lengths or limits.
        InvalidParameter: one of them is no record.
    """
    for run in (before, after):
        if not hasattr(run, "requests"):
            raise InvalidParameter(
                f"compare() takes a record, not {type(run).__name__}: give run.record, or "
                "Record.load(path)",
                param="other",
            )
    first, second = _Run(before), _Run(after)
    pairs = _paired(first.requests, second.requests)
    table = _table(first, second, pairs)
    table["why"] = [
        _why(first.waits_of(row.request_id), second.waits_of(row.other_id))
        or _pace(row, second.between_s(row.other_id) - first.between_s(row.request_id))
        for row in table.itertuples()
    ]
    size = table["e2e_s_difference"].abs().fillna(table["ttft_s_difference"].abs()).fillna(-1.0)
    order = np.argsort(-size.to_numpy("float64"), kind="stable")
    return Comparison(table.iloc[order].reset_index(drop=True))


class _Run:
    """One side: its requests, and the steps each spent waiting or preempted, by cause."""

    def __init__(self, record: SpanTables) -> None:
        tables = Tables(record.steps, record.chunks, record.requests, record.events)
        self.requests = tables.requests.sort_values("arrival_s", kind="stable", ignore_index=True)
        spans = make_spans(tables)
        inside = spans[(spans["start_step"] >= 0) & spans["kind"].isin(("wait", "preempted"))]
        between = spans[spans["cause"] == "host"]
        lengths = (between["end_s"] - between["start_s"]).groupby(between["request_id"]).sum()
        self._between_s: dict[str, float] = lengths.to_dict()
        inside = inside[inside["cause"] != "host"]
        first_s = dict(
            zip(self.requests["request_id"], self.requests["first_token_s"], strict=True)
        )
        self._waits: dict[str, dict[str, int]] = {}
        self.num_early: dict[str, int] = {}  # steps waited before the first token
        for span in inside.itertuples():
            name, cause = str(span.request_id), str(span.cause) or "preempted"
            num_steps = int(span.end_step) - int(span.start_step) + 1
            causes = self._waits.setdefault(name, {})
            causes[cause] = causes.get(cause, 0) + num_steps
            if cause != "preempted" and not span.start_s >= first_s[name]:
                self.num_early[name] = self.num_early.get(name, 0) + num_steps

    def waits_of(self, request_id: str) -> dict[str, int]:
        """Return the steps by cause; "preempted" is one of the causes."""
        return self._waits.get(request_id, {})

    def between_s(self, request_id: str) -> float:
        """Return for how long no step ran though the request was there."""
        return self._between_s.get(request_id, 0.0)

    def measures(self) -> dict[str, Array]:
        """Return each measure in the order of ``requests``."""
        requests = self.requests
        waits = [f"wait_{cause}_s" for cause in WAIT_CAUSES]
        early = [self.num_early.get(name, 0) for name in requests["request_id"]]
        return {
            "ttft_s": requests["ttft_s"].to_numpy("float64", na_value=np.nan),
            "e2e_s": requests["e2e_s"].to_numpy("float64", na_value=np.nan),
            "num_steps": requests["num_steps"].to_numpy("int64"),
            "waited_s": requests[waits].sum(axis=1).to_numpy("float64"),
            "waited_steps": np.array(early, "int64"),
            "num_preemptions": requests["num_preemptions"].to_numpy("int64"),
        }


def _paired(first: pd.DataFrame, second: pd.DataFrame) -> Array:
    """Return for each row of the first the row of the second that is the same work."""
    if len(first) != len(second):
        raise UnlikeRuns(
            f"one run has {len(first)} requests and the other {len(second)}: compare runs of one "
            "workload, or parts of them with record.where(...) or record.between(...)"
        )
    places = {name: place for place, name in enumerate(second["request_id"])}
    by_id = [places.get(name) for name in first["request_id"]]
    order = np.arange(len(first)) if None in by_id else np.array(by_id, "int64")
    for name in _ASKED:
        one, other = first[name].to_numpy(), second[name].to_numpy()[order]
        unlike = np.flatnonzero(one != other)
        if len(unlike):
            place = int(unlike[0])
            raise UnlikeRuns(
                f"{len(unlike)} requests differ in {name}, the first of them "
                f"{first['request_id'].iloc[place]} ({one[place]}) and "
                f"{second['request_id'].iloc[order[place]]} ({other[place]}): the runs did "
                "different work"
            )
    return order


def _table(first: _Run, second: _Run, pairs: Array) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {
        "request_id": first.requests["request_id"].to_numpy(object),
        "other_id": second.requests["request_id"].to_numpy(object)[pairs],
    }
    one, other = first.measures(), second.measures()
    for name in _MEASURES:
        columns[f"{name}_before"] = one[name]
        columns[f"{name}_after"] = other[name][pairs]
        columns[f"{name}_difference"] = other[name][pairs] - one[name]
    return pd.DataFrame(columns)


def _why(before: dict[str, int], after: dict[str, int]) -> str:
    """Say how waits changed: "waited 14 steps more: 9 for blocks, 5 for budget"."""
    change = {
        cause: after.get(cause, 0) - before.get(cause, 0)
        for cause in (*WAIT_CAUSES, "preempted")
        if after.get(cause, 0) != before.get(cause, 0)
    }
    lost = change.pop("preempted", 0)
    texts = []
    for sign, word in ((1, "more"), (-1, "less")):
        found = {cause: sign * steps for cause, steps in change.items() if sign * steps > 0}
        if found:
            ordered = sorted(found, key=lambda cause: -found[cause])
            causes = ", ".join(f"{found[cause]} for {cause}" for cause in ordered)
            texts.append(f"waited {_steps(sum(found.values()))} {word}: {causes}")
    if lost:
        texts.append(f"preempted for {_steps(abs(lost))} {'more' if lost > 0 else 'less'}")
    return "; ".join(texts)


def _pace(row: Any, between_s: float) -> str:
    """Say of a request that waited as before what else made it slower or faster.

    Args:
        row: Its row of the table.
        between_s: By how much longer no step ran though it was there.
    """
    if row.num_steps_difference:
        more = "more" if row.num_steps_difference > 0 else "fewer"
        return f"computed in {_steps(abs(row.num_steps_difference))} {more}"
    change_s = row.e2e_s_difference
    if not abs(change_s) > _NOTICEABLE * row.e2e_s_before:
        return _SAME
    more = "more" if change_s > 0 else "less"
    where = "between the steps" if abs(between_s) > abs(change_s) / 2 else "in the steps themselves"
    return f"{_SAME_STEPS}, {more} time {where}"


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _signed(seconds: float) -> str:
    return _told(seconds, lambda known: ("-" if known < 0 else "+") + duration(abs(known)))


def _pair(before: float, after: float) -> str:
    return f"{_told(before, duration)} -> {_told(after, duration)}"


def _told(seconds: float, how: Callable[[float], str]) -> str:
    return "-" if np.isnan(seconds) else how(seconds)
