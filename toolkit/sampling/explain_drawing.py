"""Draw an explanation: bars in inline SVG for a page, light or dark, and a matplotlib figure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from toolkit.html_table import rows_html

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["explanation_figure", "explanation_html"]

# Okabe and Ito's: apart for colour-blind readers, and readable on white and on black.
_CHOSEN, _KEPT, _RAW = "#d55e00", "#3b82c4", "#8a8a8a"
_MAX_BARS = 10
_ROW_HEIGHT, _BAR_WIDTH, _LABEL_WIDTH = 20, 240, 120
_MAX_LABEL = 16


def explanation_html(
    *,
    title: str,
    sentence: str,
    data: pd.DataFrame,
    changes: Sequence[tuple[str, str]],
    surroundings: Mapping[str, str],
) -> str:
    """Return a page's part: title, sentence, bars, steps, race, and what was around."""
    shown = data[data["place"].notna()].sort_values("place").head(5)
    race = [
        (label(row), f"{row['logit']:.3f}", f"{row['number']:+.3f}", f"{row['sum']:.3f}")
        for _, row in shown.iterrows()
    ]
    parts = [
        f"<div><b>{escape(title)}</b><div>{escape(sentence)}</div>{_bars(data)}",
        rows_html(
            ["step", "what it did"], changes, note="" if changes else "No step did anything."
        ),
        rows_html(["token", "logit", "+ number", "= sum, the largest wins"], race),
        rows_html(["around", ""], list(surroundings.items())),
    ]
    return "".join(parts) + "</div>"


def label(row: Any) -> str:
    """Return a candidate's text as a short label, with its id where there is no text."""
    text = row["text"]
    name = f"#{row['token_id']}" if text is None else repr(text)
    return name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…"


def _shown(data: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates to draw: the most likely ones, and the chosen one among them."""
    first = data.head(_MAX_BARS)
    if not first["is_chosen"].any():
        first = data[data.index.isin(first.index[:-1]) | data["is_chosen"]]
    return first


def _bars(data: pd.DataFrame) -> str:
    """Return an SVG: per candidate a grey bar of the model, and a coloured one of the draw."""
    shown = _shown(data)
    height = _ROW_HEIGHT * (len(shown) + 1)
    width = _LABEL_WIDTH + _BAR_WIDTH + 150
    lines = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'aria-label="probabilities of the candidates" '
        'style="max-width:100%;font:12px system-ui,sans-serif" fill="currentColor">',
        f'<text x="{_LABEL_WIDTH}" y="14" opacity=".7">grey: the model; coloured: the draw</text>',
    ]
    for place, (_, row) in enumerate(shown.iterrows(), start=1):
        top = place * _ROW_HEIGHT
        colour = _CHOSEN if row["is_chosen"] else _KEPT
        weight = ' font-weight="bold"' if row["is_chosen"] else ""
        numbers = f"{row['probability_raw']:.1%} → " + (
            f"{row['probability']:.1%}" if row["kept"] else "cut"
        )
        raw = _BAR_WIDTH * row["probability_raw"]
        final = _BAR_WIDTH * row["probability"]
        lines += [
            f'<text x="{_LABEL_WIDTH - 6}" y="{top + 14}" text-anchor="end"{weight}>'
            f"{escape(label(row))}</text>",
            f'<rect x="{_LABEL_WIDTH}" y="{top + 2}" width="{raw:.1f}" height="7" fill="{_RAW}"/>',
            f'<rect x="{_LABEL_WIDTH}" y="{top + 10}" width="{final:.1f}" height="7" '
            f'fill="{colour}"/>',
            f'<text x="{_LABEL_WIDTH + _BAR_WIDTH + 6}" y="{top + 14}">{numbers}</text>',
        ]
    return "".join(lines) + "</svg>"


def explanation_figure(*, title: str, data: pd.DataFrame, is_greedy: bool) -> Any:
    """Return a matplotlib figure with probabilities on the left and the race on the right."""
    from matplotlib.figure import Figure

    shown = _shown(data).iloc[::-1]
    places = range(len(shown))
    # A dollar sign would begin a formula.
    labels = [label(row).replace("$", r"\$") for _, row in shown.iterrows()]
    colours = [_CHOSEN if chosen else _KEPT for chosen in shown["is_chosen"]]
    figure = Figure(figsize=(9, 1.2 + 0.34 * len(shown)), layout="constrained")
    chances, race = figure.subplots(1, 2, sharey=True)
    above, below = [place + 0.2 for place in places], [place - 0.2 for place in places]
    chances.barh(above, shown["probability_raw"], 0.36, color=_RAW, label="the model")
    chances.barh(below, shown["probability"], 0.36, color=colours, label="after the chain")
    chances.set_yticks(list(places), labels)
    chances.set_xlabel("probability")
    chances.legend(loc="lower right")
    raced = shown["logit"].notna().to_numpy()
    rows = [place for place, is_raced in zip(places, raced, strict=True) if is_raced]
    race.barh(rows, shown["sum"][raced], 0.36, color=[colours[row] for row in rows])
    race.scatter(shown["logit"][raced], rows, color=_RAW, zorder=3, label="logit")
    race.set_xlabel("logit: the largest wins" if is_greedy else "logit + number: the largest wins")
    race.legend(loc="lower right")
    figure.suptitle(textwrap.fill(title.replace("$", r"\$"), 100), fontsize=10)
    figure.data = data  # type: ignore[attr-defined]
    return figure
