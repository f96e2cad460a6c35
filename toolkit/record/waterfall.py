"""One request's spans as a picture: inline SVG for a cell, a bar of letters for a terminal.

The SVG takes the page's own colour for text and lines, so that it reads on light and on dark;
``toolkit.widgets.palette`` takes the colours of spans from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.html_table import rows_html
from toolkit.record.sentences import duration

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLOURS", "waterfall_html", "waterfall_text"]

COLOURS = {
    "prefill": "#e08a00",
    "decode": "#0072b2",
    "preempted": "#c4373b",
    "tokenize": "#8a8a8a",
    "emit": "#4d4d4d",
    "wait_blocks": "#cc79a7",
    "wait_budget": "#b8a200",
    "wait_seqs": "#7b5fb5",
    "wait_policy": "#3aa6a0",
    "wait_grammar": "#a0673a",
    "wait_host": "#a3a3a3",
}
_LETTERS = {
    "tokenize": "t",
    "wait_blocks": "b",
    "wait_budget": "u",
    "wait_seqs": "s",
    "wait_policy": "p",
    "wait_grammar": "g",
    "wait_host": ".",
    "prefill": "P",
    "decode": "D",
    "preempted": "x",
    "emit": "e",
}
_BAR_LENGTH = 60
_MOST_SHOWN = 5

# Of the picture, in units of its own: it grows with the cell.
_WIDTH, _LEFT, _LANE, _BATCH = 760, 110, 16, 56
_MAX_BARS = 240
_OWN = "own"  # has the colour of text: the request itself


def waterfall_text(spans: pd.DataFrame, causes: pd.DataFrame) -> str:
    """Return a bar with a letter per moment, and the parts with their seconds."""
    if not len(spans):
        return ""
    names = _names(spans)
    start_s, end_s = float(spans["start_s"].min()), float(spans["end_s"].max())
    moments = start_s + (np.arange(_BAR_LENGTH) + 0.5) * (end_s - start_s) / _BAR_LENGTH
    at = np.searchsorted(spans["start_s"].to_numpy(), moments, side="right") - 1
    bar = "".join(_LETTERS[names[place]] for place in at)
    used = [f"{_LETTERS[name]} {name}" for name in _LETTERS if name in set(names)]
    rows = [
        f"  {part.part:<14}{duration(part.seconds):>10}  {part.share:5.0%}"
        + ("" if part.is_before_first_token else "  after the first token")
        for part in causes.itertuples()
    ]
    return "\n".join([f"|{bar}| {duration(end_s - start_s)}", f" {', '.join(used)}", *rows])


def waterfall_html(
    sentence: str,
    spans: pd.DataFrame,
    batch: pd.DataFrame,
    causes: pd.DataFrame,
    responsible: pd.DataFrame,
) -> str:
    """Return the sentence, the picture, the parts and who is responsible."""
    parts = rows_html(
        ["part", "time", "share", ""],
        [
            (
                part.part,
                duration(part.seconds),
                f"{part.share:.0%}",
                "" if part.is_before_first_token else "after the first token",
            )
            for part in causes.itertuples()
        ],
    )
    shown = [
        (row.request_id, row.role, duration(row.seconds), f"{row.tokens:,}" if row.tokens else "")
        for row in responsible.head(_MOST_SHOWN).itertuples()
    ]
    more = len(responsible) - len(shown)
    who = rows_html(
        ["request", "what it did", "for", "tokens"], shown, note=f"{more} more" if more > 0 else ""
    )
    tables = (
        f'<div style="display:flex;gap:32px;flex-wrap:wrap">{parts}{who if shown else ""}</div>'
    )
    picture = _svg(spans, batch) if len(spans) else ""
    return f'<div style="max-width:1000px"><div>{escape(sentence)}</div>{picture}{tables}</div>'


def _names(spans: pd.DataFrame) -> list[str]:
    return [
        f"wait_{cause}" if kind == "wait" else kind
        for kind, cause in zip(spans["kind"], spans["cause"], strict=True)
    ]


def _svg(spans: pd.DataFrame, batch: pd.DataFrame) -> str:
    names = _names(spans)
    lanes = [name for name in COLOURS if name in set(names)]
    lanes.sort(key=names.index)
    start_s, end_s = float(spans["start_s"].min()), float(spans["end_s"].max())
    scale = (_WIDTH - _LEFT) / max(end_s - start_s, 1e-12)
    rects: list[str] = []
    for lane, name in enumerate(lanes):
        of_lane = spans[[other == name for other in names]]
        top = lane * _LANE
        rects.append(_label(top, name.replace("_", " for ")))
        for left, right, title in _joined(of_lane, start_s, scale):
            rects.append(_rect(left, top + 2, right - left, _LANE - 4, COLOURS[name], title))
    height = len(lanes) * _LANE
    rects.append(_line(0, height + 2))
    rects += _batch(batch, height + 6, start_s, end_s, scale)
    bottom = height + 6 + (_BATCH if len(batch) else 0)
    rects += _axis(bottom, start_s, end_s, scale)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 16}" style="width:100%;color:inherit" role="img" '
        f'font-size="10" font-family="sans-serif" fill="currentColor">{"".join(rects)}</svg>'
    )


def _joined(
    spans: pd.DataFrame, start_s: float, scale: float
) -> Iterable[tuple[float, float, str]]:
    """Yield left, right and a title; spans less than half a unit apart become one."""
    last: list[Any] | None = None
    for span in spans.itertuples():
        left = _LEFT + (span.start_s - start_s) * scale
        right = max(left + 0.8, _LEFT + (span.end_s - start_s) * scale)
        title = f"{span.kind} {span.cause} {duration(span.end_s - span.start_s)}"
        if span.num_tokens:
            title += f", {span.num_tokens} tokens"
        if span.start_step >= 0:
            title += f", steps {span.start_step}-{span.end_step}"
        if last is not None and right - last[0] < 2 and left - last[1] < 0.5:
            last[1] = right
            continue
        if last is not None:
            yield last[0], last[1], last[2]
        last = [left, right, title]
    if last is not None:
        yield last[0], last[1], last[2]


def _batch(
    batch: pd.DataFrame, top: float, start_s: float, end_s: float, scale: float
) -> list[str]:
    """Draw each step's tokens against the budget: its own, prompts of others, others' decoding."""
    if not len(batch):
        return []
    parts = [_line(0, top), _label(top, f"tokens, of {int(batch['token_budget'].max()):,}")]
    legend = (
        (_OWN, "this request"),
        ("prefill", "others' prompts"),
        ("decode", "others' decoding"),
    )
    for line, (name, text) in enumerate(legend, start=1):
        parts.append(_rect(0, top + 3 + 12 * line, 8, 8, _colour(name), text))
        parts.append(_label(top + 12 * line, text, left=12))
    stride = -(-len(batch) // _MAX_BARS)
    for first in range(0, len(batch), stride):
        rows = batch.iloc[first : first + stride]
        left = _LEFT + (float(rows["start_s"].iloc[0]) - start_s) * scale
        stop_s = min(end_s, float((rows["start_s"] + rows["duration_s"]).iloc[-1]))
        right = max(left + 0.6, _LEFT + (stop_s - start_s) * scale)
        left = max(left, float(_LEFT))
        budget = max(1.0, float(rows["token_budget"].sum()))
        bottom = top + _BATCH - 4
        sums = rows[["own_tokens", "mates_prompt_tokens", "mates_decode_tokens"]].sum()
        numbers = rows["step"].iloc[[0, -1]].tolist()
        title = (
            f"steps {numbers[0]}-{numbers[1]}: own {sums.iloc[0]}, prompts of others "
            f"{sums.iloc[1]}, decoding of others {sums.iloc[2]}, budget {int(budget)} tokens"
        )
        for count, name in zip(sums, (_OWN, "prefill", "decode"), strict=True):
            height = (_BATCH - 8) * float(count) / budget
            if height > 0:
                width = max(0.4, right - left)
                parts.append(_rect(left, bottom - height, width, height, _colour(name), title))
                bottom -= height
    return parts


def _axis(top: float, start_s: float, end_s: float, scale: float) -> list[str]:
    parts = [_line(0, top)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        seconds = share * (end_s - start_s)
        anchor = "end" if share == 1.0 else "start" if share == 0.0 else "middle"
        left = _LEFT + seconds * scale
        parts.append(
            f'<text x="{left:.1f}" y="{top + 12:.1f}" text-anchor="{anchor}" opacity=".7">'
            f"{duration(seconds)}</text>"
        )
    return parts


def _rect(left: float, top: float, width: float, height: float, colour: str, title: str) -> str:
    return (
        f'<rect x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" '
        f'fill="{colour}"><title>{escape(title)}</title></rect>'
    )


def _colour(name: str) -> str:
    return COLOURS.get(name, "currentColor")


def _label(top: float, text: str, *, left: float = 0) -> str:
    return f'<text x="{left}" y="{top + 11:.1f}" opacity=".8">{escape(text)}</text>'


def _line(left: float, top: float) -> str:
    return (
        f'<line x1="{left}" x2="{_WIDTH}" y1="{top:.1f}" y2="{top:.1f}" stroke="currentColor" '
        'opacity=".25"/>'
    )
