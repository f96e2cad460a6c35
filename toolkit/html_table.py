"""Small HTML tables for notebooks: they take their colours from the page, light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

__all__ = ["CELL", "TABLE", "facts_html", "rows_html"]

# Half-transparent grey is a quiet line on white and on black; text keeps the page's own colour.
_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"
CELL = f"padding:2px 12px 2px 0;text-align:left;vertical-align:top;{_LINE}"
TABLE = "border-collapse:collapse;background:transparent;color:inherit;font-size:inherit"


def facts_html(title: str, facts: Mapping[str, str], *, code: str = "") -> str:
    """Return a title, a row per fact, and a command to copy, if there is one."""
    rows = "".join(
        f'<tr style="background:transparent"><th style="{CELL};opacity:.7">{escape(name)}</th>'
        f'<td style="{CELL}">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    command = (
        '<pre style="margin:6px 0 0;padding:6px 8px;white-space:pre-wrap;color:inherit;'
        f'background:rgba(128,128,128,.12)">{escape(code)}</pre>'
        if code
        else ""
    )
    return f'<div><b>{escape(title)}</b><table style="{TABLE}">{rows}</table>{command}</div>'


def rows_html(columns: Sequence[str], rows: Iterable[Sequence[str]], *, note: str = "") -> str:
    """Return a table with a heading per column, and a line below it."""
    head = "".join(f'<th style="{CELL};opacity:.7">{escape(name)}</th>' for name in columns)
    body = "".join(
        '<tr style="background:transparent">'
        + "".join(f'<td style="{CELL}">{_breakable(value)}</td>' for value in row)
        + "</tr>"
        for row in rows
    )
    below = f'<div style="opacity:.7">{escape(note)}</div>' if note else ""
    return f'<div><table style="{TABLE}"><tr>{head}</tr>{body}</table>{below}</div>'


def _breakable(value: str) -> str:
    """Let a long row of labels, which has no spaces, go on in the next line after a comma."""
    return escape(value).replace(",", ",<wbr>")
