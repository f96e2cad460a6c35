"""Tokens as text that carries colour, for pages without a script and for pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from toolkit.widgets.fallback import new_figure
from toolkit.widgets.palette import LIGHT

__all__ = [
    "MODES",
    "SOURCE_COLOURS",
    "Paint",
    "modes_of",
    "paints",
    "text_figure",
    "text_html",
    "visible",
]

MODES = ("probability", "rank", "entropy", "source", "plain")
# Where a colour is strongest: a probability of 1e-4, rank 100, 4 nats.
_STRONGEST = {"probability": np.log(1e4), "rank": np.log(100.0), "entropy": 4.0}
# Full strength leaves the page's own text readable, black or white.
_MOST_OPAQUE = 0.6
_LEAST_OPAQUE = 0.02
_FONT_POINTS = 8.5
_CHARACTER_IN = 0.602 * _FONT_POINTS / 72  # DejaVu Sans Mono's advance is 0.602 em
_LINE_IN = 0.21
_GAP_IN = 0.15
_NUMBERS = LIGHT["prefill"]
_CACHED = LIGHT["cached"]
SOURCE_COLOURS = {
    "sampled": LIGHT["decode"],
    "greedy": LIGHT["cached"],
    "grammar": LIGHT["wait_seqs"],
    "draft": LIGHT["wait_budget"],
    "forced": LIGHT["preempted"],
}


class Paint(NamedTuple):
    """A token as it is drawn."""

    text: str
    kind: str
    colour: str | None = None  # "#rrggbb"
    opacity: float = 0.0
    is_faint: bool = False  # a token of the prompt
    mark: str | None = None  # the colour of a line below it


def modes_of(table: pd.DataFrame) -> list[str]:
    """Return what the tokens can be coloured by: what is known of at least one of them."""
    columns = {
        "probability": "logprob_raw",
        "rank": "rank_raw",
        "entropy": "entropy_nats",
        "source": "source",
    }
    known = [mode for mode, column in columns.items() if table[column].notna().any()]
    return [*known, "plain"]


def paints(table: pd.DataFrame, mode: str) -> list[Paint]:
    """Return the tokens of a token table in the colours of a mode."""
    if mode == "source":
        colours = [SOURCE_COLOURS.get(str(source)) for source in table["source"]]
        opacities = [_MOST_OPAQUE if colour else 0.0 for colour in colours]
    else:
        colours = [_NUMBERS] * len(table)
        opacities = [_MOST_OPAQUE * strength for strength in _strengths(table, mode)]
    columns = (table["text"], table["kind"], table["part"], table["is_cached"])
    return [
        Paint(text, kind, colour, opacity, part == "prompt", _CACHED if is_cached else None)
        for text, kind, part, is_cached, colour, opacity in zip(
            *columns, colours, opacities, strict=True
        )
    ]


def _strengths(table: pd.DataFrame, mode: str) -> list[float]:
    values = {
        "probability": lambda: -table["logprob_raw"].to_numpy(dtype=float),
        "rank": lambda: np.log(table["rank_raw"].to_numpy(dtype=float, na_value=np.nan)),
        "entropy": lambda: table["entropy_nats"].to_numpy(dtype=float),
    }
    if mode not in values:
        return [0.0] * len(table)
    shares = np.clip(values[mode]() / _STRONGEST[mode], 0.0, 1.0)
    return [float(share) for share in np.nan_to_num(shares, nan=0.0)]


def text_html(tokens: Iterable[Paint]) -> str:
    """Return the tokens as text in a page that may be light or dark."""
    # Neighbours that look alike share an element: a fallback is to stay small.
    body = "".join(
        _span("".join(visible(token.text, breaks=True) for token in alike), style)
        for style, alike in groupby(tokens, key=_style)
    )
    return f'<div style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7">{body}</div>'


def _span(text: str, style: str) -> str:
    return f'<span style="{style}">{escape(text)}</span>' if style else escape(text)


def _style(token: Paint) -> str:
    style = ""
    if token.colour and token.opacity >= _LEAST_OPAQUE:
        red, green, blue = (int(token.colour[at : at + 2], 16) for at in (1, 3, 5))
        style += f"background:rgba({red},{green},{blue},{token.opacity:.2f});"
    if token.is_faint:
        style += "opacity:.65;"
    if token.mark:
        style += f"border-bottom:2px solid {token.mark};"
    if token.kind != "text":
        style += "border:1px solid rgba(128,128,128,.6);font-size:80%;"
    return style


def visible(text: str, *, breaks: bool = False) -> str:
    """Return text with signs for what cannot be seen; with ``breaks`` a line end also ends it."""
    return text.replace("\t", "⇥\t").replace("\n", "⏎\n" if breaks else "⏎") or "∅"


def text_figure(
    columns: Sequence[Sequence[Paint]],
    *,
    titles: Sequence[str],
    width: int = 88,
    max_lines: int = 60,
) -> Any:
    """Return a figure of columns of monospaced text, each ``width`` characters wide."""
    laid = [list(_laid_out(tokens, width)) for tokens in columns]
    num_lines = min(max_lines, max((row for one in laid for row, _, _, _ in one), default=0) + 1)
    width_in = _CHARACTER_IN * width
    whole_in = (width_in + _GAP_IN) * len(columns) + _GAP_IN
    height_in = _LINE_IN * (num_lines + 2)
    figure = new_figure(whole_in, height_in)
    figure.set_layout_engine("none")  # text keeps its size, so the axes must keep theirs
    for number, (cells, title) in enumerate(zip(laid, titles, strict=True)):
        left = (_GAP_IN + (width_in + _GAP_IN) * number) / whole_in
        share = num_lines / (num_lines + 2)
        axes = figure.add_axes((left, 0.5 / (num_lines + 2), width_in / whole_in, share))
        axes.set(xlim=(0, width), ylim=(num_lines, 0))
        axes.set_axis_off()
        axes.set_title(title, fontsize=9, loc="left")
        for row, column, text, token in cells:
            if row < num_lines:
                _draw(axes, row, column, text, token)
    return figure


def _laid_out(tokens: Iterable[Paint], width: int) -> Iterator[tuple[int, int, str, Paint]]:
    """Yield (row, column, text, token): tokens in lines, cut where a line is full."""
    row = column = 0
    for token in tokens:
        text = visible(token.text).replace("⇥\t", "⇥")
        for part in (text[at : at + width] for at in range(0, len(text), width)):
            if column + len(part) > width:
                row, column = row + 1, 0
            yield row, column, part, token
            column += len(part)
        if text.endswith("⏎"):
            row, column = row + 1, 0


def _draw(axes: Any, row: int, column: int, text: str, token: Paint) -> None:
    from matplotlib.patches import Rectangle

    if token.colour and token.opacity >= _LEAST_OPAQUE:
        axes.add_patch(
            Rectangle((column, row), len(text), 1, color=token.colour, alpha=token.opacity, lw=0)
        )
    if token.mark:
        axes.plot([column, column + len(text)], [row + 0.97] * 2, color=token.mark, lw=1.5)
    is_quiet = token.is_faint or token.kind != "text"
    axes.text(
        column,
        row + 0.5,
        "".join(character if _has_glyph(character) else "□" for character in text),
        color=LIGHT["muted"] if is_quiet else LIGHT["text"],
        family="DejaVu Sans Mono",
        fontsize=_FONT_POINTS,
        va="center",
        parse_math=False,
    )


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    """Whether matplotlib's own font has the character: without it each one is a warning."""
    from matplotlib.font_manager import findfont, get_font

    return bool(get_font(findfont("DejaVu Sans Mono")).get_char_index(ord(character)))
