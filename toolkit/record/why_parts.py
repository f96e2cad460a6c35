"""An answer to "why" as JSON, to send it from one process to another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from toolkit.record.why import Why

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["why_from_json", "why_to_json"]

_TEXTS = ("request_id", "main", "sentence")
_TABLES = ("causes", "spans", "responsible", "batch")


def why_to_json(why: Why) -> dict[str, Any]:
    """Return plain values: the texts, and each table as columns, dtypes and rows."""
    texts = {name: getattr(why, name) for name in _TEXTS}
    return {**texts, **{name: _plain(getattr(why, name)) for name in _TABLES}}


def why_from_json(values: dict[str, Any]) -> Why:
    """Return what ``why_to_json`` took apart."""
    tables = {name: _frame(values[name]) for name in _TABLES}
    return Why(**{name: values[name] for name in _TEXTS}, **tables)


def _plain(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "columns": list(frame.columns),
        "dtypes": [str(dtype) for dtype in frame.dtypes],
        "data": json.loads(frame.to_json(orient="values", double_precision=15)),
    }


def _frame(parts: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    columns, dtypes = parts["columns"], parts["dtypes"]
    frame = pd.DataFrame(parts["data"], columns=columns, dtype=object)
    return frame.astype(dict(zip(columns, dtypes, strict=True)))
