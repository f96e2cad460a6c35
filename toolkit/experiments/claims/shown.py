"""Verdicts as people read them: a mark, our number beside the paper's, what repeats said once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from html import escape
from typing import Any

from toolkit.experiments.claims.claim import NOT_REPRODUCED, REPRODUCED
from toolkit.experiments.claims.table import find_claim
from toolkit.html_table import CELL, TABLE

__all__ = ["NOT_MEASURED", "Group", "Line", "Shown", "shown", "shown_html", "shown_text"]

NOT_MEASURED = "not measured"
_MARKS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", NOT_MEASURED: "–"}
# The mark tells them apart; the colours, of a palette for all eyes, are in addition.
_STYLES = {REPRODUCED: "color:#009e73", NOT_REPRODUCED: "color:#d55e00", NOT_MEASURED: ""}
_MUTED = "opacity:.6"
_WORDS = ("quantity", "why")  # columns whose text may go on in the next line
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_NOISE = "within noise: could turn with other seeds"
_SET = "set before anything was measured"
_QUICK = 'quick size; size="paper" (in a shell --size paper) is the papers\' own'


@dataclass(frozen=True, slots=True)
class Line:
    """One claim, in words; ``tolerance`` was set before anything was measured."""

    verdict: str
    quantity: str
    claimed: str
    tolerance: str
    measured: str
    off: str
    why: str

    @property
    def mark(self) -> str:
        """A sign for the verdict."""
        return _MARKS[self.verdict]


@dataclass(frozen=True, slots=True)
class Group:
    """The claims of one figure."""

    source: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is to be shown of a table of verdicts; ``notes`` stand below it."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]


def shown(rows: Sequence[Mapping[str, Any]]) -> Shown:
    """Put rows of a table of verdicts into words.

    A reason stands in a row where one is due: the claim is not reproduced, not measured, or its
    verdict is within noise. The last, and what several rows have in common, is a footnote.
    """
    said = Counter(part for row in rows for part in _parts(row))
    common = [part for part, num in said.items() if num > 1 or part == _NOISE]
    marks = {part: str(place).translate(_RAISED) for place, part in enumerate(common, 1)}
    lines: dict[str, list[Line]] = {}
    for row in rows:
        lines.setdefault(_source(row), []).append(_line(row, marks))
    groups = tuple(Group(source, tuple(own)) for source, own in lines.items())
    return Shown(groups, (*(f"{mark} {part}" for part, mark in marks.items()), *_notes(rows)))


def _parts(row: Mapping[str, Any]) -> list[str]:
    noise = [_NOISE] if row["is_within_noise"] else []
    return [*noise, *(part for part in row["remark"].split("; ") if part)]


def _source(row: Mapping[str, Any]) -> str:
    figure = row["figure"]
    if figure == "-":
        return str(row["paper"])
    if figure.isdigit():
        figure = f"figure {figure}"
    elif figure.startswith("T"):
        figure = f"table {figure[1:]}"
    return f"{row['paper']}, {figure}"


def _line(row: Mapping[str, Any], marks: Mapping[str, str]) -> Line:
    claim = find_claim(row["id"])
    is_measured = not math.isnan(row["measured"])
    verdict = row["verdict"] if is_measured else NOT_MEASURED
    own, common = [], []
    for part in _parts(row):
        if part in marks:
            common.append(part)
        elif verdict != REPRODUCED:
            own.append(part)
    notes = [mark for part, mark in marks.items() if part in common]
    why = " ".join(filter(None, ["; ".join(own), *notes]))
    measured = claim.told(row["measured"], error=row["error"]) if is_measured else ""
    return Line(verdict, claim.quantity, claim.claimed, claim.allowed, measured, row["off"], why)


def _notes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    nums = {row["num_seeds"] for row in rows if row["error"] > 0}
    if nums:
        span = f"{min(nums)} to {max(nums)}" if len(nums) > 1 else f"{nums.pop()}"
        yield f"± after a measured number: half the 95 % interval of its mean over {span} seeds"
    if any(row["size"] == "quick" for row in rows):
        yield _QUICK


def shown_html(told: Shown, summary: str) -> str:
    """Return a table that takes its colours from the page, with the notes below it."""
    names = ("off by" if name == "off" else name for name in _heads())
    head = "".join(f'<th style="{CELL};opacity:.7">{name}</th>' for name in names)
    body = "".join(_group_html(group) for group in told.groups)
    below = "".join(f"<div>{escape(note)}</div>" for note in (*told.notes, f"tolerance: {_SET}"))
    return (
        f'<div><div style="margin-bottom:4px;font-weight:600">{escape(summary)}</div>'
        f'<table style="{TABLE}"><tr>{head}</tr>{body}</table>'
        f'<div style="{_MUTED};margin-top:4px">{below}</div></div>'
    )


def _heads() -> list[str]:
    return [field.name for field in fields(Line)]


def _group_html(group: Group) -> str:
    width = len(_heads())
    heading = f'<td colspan="{width}" style="{CELL};padding-top:8px"><i>{escape(group.source)}</i>'
    rows = "".join(_line_html(line) for line in group.lines)
    return f'<tr style="background:transparent">{heading}</td></tr>{rows}'


def _line_html(line: Line) -> str:
    style = _STYLES[line.verdict]
    muted = f";{_MUTED}" if line.verdict == NOT_MEASURED else ""
    cells = {name: escape(text) for name, text in zip(_heads(), astuple(line), strict=True)}
    cells["verdict"] = f'<span style="{style}">{line.mark}</span> {cells["verdict"]}'
    told = "".join(
        f'<td style="{CELL}{"" if name in _WORDS else ";white-space:nowrap"}">{text}</td>'
        for name, text in cells.items()
    )
    return f'<tr style="background:transparent{muted}">{told}</tr>'


def shown_text(told: Shown, summary: str) -> str:
    """Return the same as lines of text, two for each claim, of which the first begins so."""
    lines = [summary]
    for group in told.groups:
        lines += ["", group.source]
        for line in group.lines:
            lines.append(f"{line.mark} {line.verdict:<14}  {line.quantity}")
            lines.append("    " + _numbers(line) + (f"  {line.why}" if line.why else ""))
    return "\n".join([*lines, "", *told.notes, f"in brackets: the tolerance, {_SET}"])


def _numbers(line: Line) -> str:
    tolerance = "" if line.tolerance == "none" else f" ({line.tolerance})"
    measured = f"{line.measured}, " if line.measured else ""
    off = f": {line.off}" if line.off else ""
    return f"{measured}claimed {line.claimed}{tolerance}{off}"
