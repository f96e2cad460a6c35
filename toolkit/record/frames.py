"""Make DataFrames of what is stored: the columns of the schema, in its order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.record.holdings import NEVER
from toolkit.record.layout import SOURCES
from toolkit.record.log import Log, Rows
from toolkit.record.rows import REQUEST_KINDS
from toolkit.record.schema import SCHEMA, TAGS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_TAG_COLUMNS", "frame", "request_rows", "schema_frame"]

# Tags become columns, and each has a cell in every row: clients may invent no more than these.
MAX_TAG_COLUMNS = 100


def request_rows(ended: Rows, live: list[tuple[Any, ...]]) -> Rows:
    """Return the rows of ended and live requests in the order of their arrival."""
    if live:
        # A row may have moved to the log since the live ones were listed: the log's is the newer.
        known = set(ended["request_id"].tolist())
        fresh = Log(REQUEST_KINDS, max_rows=1 << 60)
        for row in live:
            if row[0] not in known:
                fresh.append(row)
        added = fresh.read()
        ended = {name: np.concatenate([ended[name], added[name]]) for name in ended}
    order = np.argsort(ended["arrival_index"], kind="stable")
    return {name: values[order] for name, values in ended.items()}


def frame(
    table: str,
    rows: Rows,
    token_text: Callable[[int], str | None],
    wanted: Collection[str] | None = None,
) -> pd.DataFrame:
    """Return rows of a log as the table that a user sees, or as some of its columns."""
    # Imported here: pandas takes 0.4 s, which an engine that nobody asks for tables need not pay.
    import pandas as pd

    columns: dict[str, Any] = {}
    for column in SCHEMA[table]:
        if wanted is not None and column.name not in wanted:
            continue
        if column.name == TAGS:
            for name, values in _tag_columns(rows["tags"]).items():
                columns[name] = pd.Series(values, dtype=object)
        elif column.name == "text":
            columns["text"] = pd.Series(_texts(rows["token_id"], token_text), dtype=object)
        else:
            columns[column.name] = _column(table, column.name, column.dtype, rows)
    return pd.DataFrame(columns)


def schema_frame() -> pd.DataFrame:
    """Return a row per column of every table: its type, its unit, what it means."""
    import pandas as pd

    rows = [(table, *column) for table, columns in SCHEMA.items() for column in columns]
    return pd.DataFrame(rows, columns=["table", "column", "dtype", "unit", "meaning"])


def _column(table: str, name: str, dtype: str, rows: Rows) -> Any:
    import pandas as pd

    values = rows[name]
    if name == "source":
        values = np.array(SOURCES, object)[values]
    if name == "end_why":
        values = np.where(rows["is_evicted"].astype(bool), "evicted", values)
    if name == "is_recomputed":
        return values.astype(bool)
    if name in ("priority", "seed"):
        return _integers(values)
    if dtype == "Int64":
        is_null = values <= 0 if name == "rank_raw" else values == NEVER
        return pd.arrays.IntegerArray(values.astype(np.int64), is_null)
    if dtype == "str":
        return pd.Series(values, dtype=object)  # which keeps None as None
    return values.astype(np.int64) if dtype == "int64" else values


def _integers(values: np.ndarray) -> np.ndarray:
    """Return the narrowest of int64, uint64 and Python's integers that holds them all."""
    if all(-(1 << 63) <= value < 1 << 63 for value in values):
        return values.astype(np.int64)
    fits = all(0 <= value < 1 << 64 for value in values)
    return values.astype(np.uint64) if fits else values


def _tag_columns(tags: np.ndarray) -> dict[str, np.ndarray]:
    """Return a column for each of the most frequent tags, by name."""
    counts = Counter(name for own in tags if own for name in own)
    names = sorted((name for name, _ in counts.most_common(MAX_TAG_COLUMNS)), key=str)
    return {
        f"tags.{name}": np.fromiter(
            ((own or {}).get(name) for own in tags), dtype=object, count=len(tags)
        )
        for name in names
    }


def _texts(token_ids: np.ndarray, token_text: Callable[[int], str | None]) -> np.ndarray:
    distinct, places = np.unique(token_ids, return_inverse=True)
    texts = np.fromiter(map(token_text, distinct.tolist()), object, len(distinct))
    return texts[places] if len(distinct) else np.empty(0, object)
