"""A summary as a table to read: no empty columns, a unit for every number."""

from __future__ import annotations

from typing import Any

import pandas as pd

from toolkit.html_table import rows_html
from toolkit.record.sentences import duration

__all__ = ["SummaryFrame"]

_UNITS = {
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "tokens/s",
    "total_tokens_per_s": "tokens/s",
    "goodput_per_s": "requests/s",
}


class SummaryFrame(pd.DataFrame):
    """What ``summarise`` returns: a plain DataFrame in all but how a notebook shows it.

    There each interval of 95 % stands behind its number, and columns without any number are left
    out. What is made of it, a selection say, is shown as pandas does.
    """

    def _repr_html_(self) -> str:
        shown = [
            name
            for name in self.columns
            if not str(name).endswith(("_low", "_high")) and self[name].notna().any()
        ]
        rows = [
            (
                *map(str, key if isinstance(key, tuple) else (key,)),
                *(self._cell(key, n) for n in shown),
            )
            for key in self.index
        ]
        note = "Behind a number: its interval of 95 %. The same table, in seconds, is a DataFrame."
        return rows_html([*map(str, self.index.names), *map(str, shown)], rows, note=note)

    def _cell(self, key: Any, name: str) -> str:
        """Write one number with its unit, and its interval if it has one."""
        metric = key[-1] if isinstance(key, tuple) else key
        row = self.loc[key]
        if name == "num":
            return f"{int(row[name]):,}"
        if pd.isna(row[name]):
            return ""
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        has_interval = low is not None and not pd.isna(low) and not pd.isna(high)
        interval = f" ({_told(metric, low)} to {_told(metric, high)})" if has_interval else ""
        return _told(metric, row[name]) + interval


def _told(metric: str, value: float) -> str:
    if metric in _UNITS:
        return f"{value:,.4g} {_UNITS[metric]}"
    return f"{100 * value:.1f} %" if metric == "goodput_share" else duration(value)
