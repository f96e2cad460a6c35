"""Turn what an engine recorded, real or simulated, into the tables of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from toolkit.experiments.runs.notes import description_of
from toolkit.experiments.runs.results import REQUEST_COLUMNS, Run
from toolkit.record import Record

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["NO_TOKENS", "Refusal", "finished", "run_of_record", "run_of_requests"]

_MEASURED = (
    "status",
    "error",
    "arrival_s",
    "first_token_s",
    "last_token_s",
    "finished_s",
    "num_cached_tokens",
    "num_output_tokens",
    "itl_p50_s",
    "itl_p99_s",
    "itl_max_s",
)
NO_TOKENS = pd.DataFrame(
    {
        "arrival_id": np.empty(0, "int64"),
        "index": np.empty(0, "int64"),
        "time_s": np.empty(0, "float64"),
    }
)


class Refusal(NamedTuple):
    """A request that got no id: when it was scheduled and sent, and why it was refused."""

    arrival_id: int
    scheduled_s: float
    sent_s: float
    error: str


def run_of_record(
    record: Record,
    request_ids: Mapping[int, str],
    workload: Workload,
    *,
    start_s: float = 0.0,
    sent_s: Mapping[int, float] | None = None,
    refused: Sequence[Refusal] = (),
    **parts: Any,
) -> Run:
    """Make a run of an engine's record.

    Args:
        record: Of the interval of the load; other requests in it are left out.
        request_ids: The engine's id of each arrival that it took in.
        workload: What was asked.
        start_s: When the load began, on the record's clock.
        sent_s: When each of those was sent, from the start of the load; by default when it was
            scheduled.
        refused: Those that it did not take in.
        parts: Further fields of the ``Run``: environment, settings, saturation, notes.
    """
    ids = pd.DataFrame(
        {
            "arrival_id": np.fromiter(request_ids, "int64", len(request_ids)),
            "request_id": np.fromiter(request_ids.values(), object, len(request_ids)),
        }
    )
    measured = ids.merge(record.requests, on="request_id", how="left")
    is_known = measured["status"].notna()
    notes = list(parts.pop("notes", ()))
    if not is_known.all():
        notes.append(f"the record had no room for {int((~is_known).sum())} requests: left out")
    if record.num_dropped["tokens"]:
        notes.append(
            f"the record had no room for {record.num_dropped['tokens']} tokens: the row itl_s of "
            "a summary lacks them, the columns itl_... of requests do not"
        )
    return run_of_requests(
        measured[is_known],
        _tokens(record, ids, start_s),
        workload,
        start_s=start_s,
        sent_s=sent_s,
        refused=refused,
        record=record,
        notes=notes,
        **parts,
    )


def run_of_requests(
    measured: pd.DataFrame,
    tokens: pd.DataFrame,
    workload: Workload,
    *,
    start_s: float = 0.0,
    sent_s: Mapping[int, float] | None = None,
    refused: Sequence[Refusal] = (),
    **parts: Any,
) -> Run:
    """Make a run of rows of a record's ``requests`` that have an ``arrival_id``.

    For the rest see ``run_of_record``.
    """
    # Of requests that two engines served in turn not all columns are known.
    table = measured.reindex(columns=["arrival_id", "request_id", *_MEASURED])
    for name in ("arrival_s", "first_token_s", "last_token_s", "finished_s"):
        table[name] -= start_s
    table = table.rename(columns={"arrival_s": "scheduled_s"})
    table["sent_s"] = (
        table["scheduled_s"] if sent_s is None else table["arrival_id"].map(dict(sent_s))
    )
    if refused:
        rows = pd.DataFrame(refused, columns=Refusal._fields).assign(status="failed")
        table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
    return Run(
        requests=finished(table, workload),
        tokens=tokens,
        workload=workload,
        workload_description=description_of(workload),
        **parts,
    )


def finished(table: pd.DataFrame, workload: Workload) -> pd.DataFrame:
    """Return a run's table of requests, made of what was measured of them.

    Args:
        table: Columns of ``REQUEST_COLUMNS`` in any order; what is missing is derived or empty.
        workload: Has the tags, and the tokens of prompts that nobody counted.
    """
    table = table.sort_values("arrival_id", kind="stable", ignore_index=True)
    asked = workload.table.set_index("arrival_id").loc[table["arrival_id"]].reset_index(drop=True)
    if "num_prompt_tokens" not in table:
        table["num_prompt_tokens"] = np.nan
    table["num_prompt_tokens"] = table["num_prompt_tokens"].fillna(asked["num_prompt_tokens"])
    num_output = _column(table, "num_output_tokens").fillna(0)
    table["num_output_tokens"] = num_output
    table["ttft_s"] = _column(table, "first_token_s") - table["scheduled_s"]
    table["e2e_s"] = _column(table, "last_token_s") - table["scheduled_s"]
    between = table["last_token_s"] - table["first_token_s"]
    table["tpot_s"] = between / (num_output - 1).where(num_output > 1)
    table["norm_latency_s"] = table["e2e_s"] / num_output.where(num_output > 0)
    columns = {name: _column(table, name).astype(kind) for name, kind in REQUEST_COLUMNS.items()}
    for name in ("request_id", "error"):
        columns[name] = columns[name].where(columns[name].notna(), None)
    tags = {name: asked[name].astype(object) for name in asked if name.startswith("tags.")}
    return pd.DataFrame({**columns, **tags})


def _column(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a column, or an empty one of its kind."""
    if name in table:
        return table[name]
    empty = {"int64": 0, "float64": np.nan, "object": None, "Int64": pd.NA}[REQUEST_COLUMNS[name]]
    table[name] = pd.Series([empty] * len(table), index=table.index, dtype=REQUEST_COLUMNS[name])
    return table[name]


def _tokens(record: Record, ids: pd.DataFrame, start_s: float) -> pd.DataFrame:
    """Return the tokens of the load, in the order of its requests."""
    tokens = record.tokens[["request_id", "index", "sent_s"]].merge(ids, on="request_id")
    if tokens.empty:
        return NO_TOKENS.copy()
    tokens = tokens.sort_values(["arrival_id", "index"], kind="stable", ignore_index=True)
    return pd.DataFrame(
        {
            "arrival_id": tokens["arrival_id"],
            "index": tokens["index"],
            "time_s": tokens["sent_s"] - start_s,
        }
    )
