"""LogitLens: what every layer would have said, had it been the last one."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig, InvalidRequest
from toolkit.widgets.base import Widget
from toolkit.widgets.fallback import new_figure
from toolkit.widgets.palette import LIGHT
from toolkit.widgets.token_paint import visible

__all__ = ["LogitLens"]

_HERE = Path(__file__).parent
FAINTEST = -10.0  # nats: what is less likely has no colour
_MOST_OPAQUE = 0.6
# More columns than this would be no picture; the live view scrolls.
_MAX_DRAWN = 24


class LogitLens(Widget):
    """Tokens along x, layers up; the colour is the log-probability of the token that came next.

    Each cell holds the token that its layer finds likeliest; hovering tells the five likeliest.

    Args:
        source: A capture of ``layers.*.resid_post`` (``llm.hooks.capture``), or the Lens of one
            request (``capture.lens(request_id)``).
        request_id: Whose lens it is, where the capture holds several; an answer will do.

    Raises:
        InvalidConfig: ``source`` is neither.
        InvalidRequest: the capture holds no such request, or several and none is named.
    """

    _esm = _HERE / "logit_lens.js"
    _css = Widget._css + (_HERE / "tokens.css").read_text()

    def __init__(self, source: Any, request_id: Any = None) -> None:
        self.lens = _lens(source, request_id)
        super().__init__()

    @property
    def data(self) -> pd.DataFrame:
        """A row per layer, position and likely token, with the log-probability of the next one."""
        lens = self.lens
        layers, positions, top = np.asarray(lens.top_ids).shape
        cells = layers * positions
        return pd.DataFrame(
            {
                "layer": np.repeat(lens.layers, positions * top),
                "position": np.tile(np.repeat(lens.positions, top), layers),
                "token": np.tile(np.repeat(np.asarray(lens.tokens, dtype=object), top), layers),
                "next_token": np.tile(np.repeat(np.asarray(_next(lens), object), top), layers),
                "next_logprob": np.repeat(np.asarray(lens.logprob).ravel(), top),
                "rank": np.tile(np.arange(1, top + 1), cells),
                "token_id": np.asarray(lens.top_ids).ravel(),
                "text": [text for layer in lens.top_texts for at in layer for text in at],
                "logprob": np.asarray(lens.top_logprobs).ravel(),
            }
        )

    def full_frame(self) -> None:
        """Send everything."""
        lens = self.lens
        texts: dict[str, int] = {}
        top = [
            texts.setdefault(text, len(texts))
            for layer in lens.top_texts
            for at in layer
            for text in at
        ]
        self.send_frame(
            "lens",
            {
                "layers": list(lens.layers),
                "tokens": list(lens.tokens),
                "next_tokens": _next(lens),
                "texts": list(texts),
                "num_top": int(np.asarray(lens.top_ids).shape[2]),
            },
            positions=np.asarray(lens.positions),
            logprob=np.asarray(lens.logprob, dtype=np.float32),
            top=np.asarray(top, dtype=np.int32),
            top_logprob=np.asarray(lens.top_logprobs, dtype=np.float32),
        )

    # ---- without a page

    def figure(self) -> Any:
        """Return the lens as a matplotlib Figure; of many positions the last."""
        lens = self.lens
        first = max(0, len(lens.positions) - _MAX_DRAWN)
        tokens = [visible(token) for token in lens.tokens[first:]]
        logprob = np.asarray(lens.logprob)[:, first:]
        count, layers = max(1, len(tokens)), len(lens.layers)
        figure = new_figure(0.62 * count + 1.8, 0.24 * layers + 1.5)
        axes = figure.add_subplot()
        image = axes.imshow(
            logprob, origin="lower", aspect="auto", cmap="Blues", vmin=FAINTEST, vmax=0.0
        )
        for layer in range(layers):
            for place in range(len(tokens)):
                value = logprob[layer, place]
                axes.text(
                    place,
                    layer,
                    _short(lens.top_texts[layer][first + place][0]),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if value > FAINTEST / 3 else LIGHT["text"],
                    parse_math=False,
                )
        axes.set_xticks(range(len(tokens)), tokens, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(layers), lens.layers)
        axes.set_xlabel("token")
        axes.set_ylabel("layer")
        figure.colorbar(image, label="log-probability of\nthe next token (nats)")
        return figure

    def static_html(self) -> str:
        """Return the lens as an HTML table that needs no script."""
        lens = self.lens
        first = max(0, len(lens.positions) - _MAX_DRAWN)
        head = "".join(f"<th>{escape(visible(token))}</th>" for token in lens.tokens[first:])
        rows = "".join(
            f'<tr style="background:transparent"><th>{escape(lens.layers[layer])}</th>'
            + "".join(self._cell(layer, place) for place in range(first, len(lens.positions)))
            + "</tr>"
            for layer in reversed(range(len(lens.layers)))
        )
        return (
            f'<div style="overflow-x:auto">{escape(repr(self))}'
            '<table style="border-collapse:collapse;font-family:monospace">'
            f'<tr style="background:transparent"><th>layer</th>{head}</tr>{rows}</table></div>'
        )

    def _cell(self, layer: int, place: int) -> str:
        value = float(self.lens.logprob[layer][place])
        share = 0.0 if np.isnan(value) else _MOST_OPAQUE * max(0.0, 1.0 - value / FAINTEST)
        red, green, blue = (int(LIGHT["decode"][at : at + 2], 16) for at in (1, 3, 5))
        text = escape(visible(self.lens.top_texts[layer][place][0]))
        return f'<td style="background:rgba({red},{green},{blue},{share:.2f})">{text}</td>'

    def __repr__(self) -> str:
        lens = self.lens
        return (
            f"LogitLens({lens.request_id}: {len(lens.layers)} layers, "
            f"{len(lens.positions)} positions)"
        )


def _lens(source: Any, request_id: Any) -> Any:
    """Return the lens itself, or read it out of a capture."""
    if hasattr(source, "top_logprobs"):
        return source
    if not hasattr(source, "lens"):
        raise InvalidConfig(
            f"a logit lens needs a capture or a Lens, not {type(source).__name__}: "
            'with llm.hooks.capture("layers.*.resid_post") as capture: ...'
        )
    if request_id is None:
        names = list(source)
        if len(names) != 1:
            raise InvalidRequest(
                f"the capture holds {len(names)} requests ({', '.join(map(str, names[:5]))}); "
                "say which: LogitLens(capture, request_id)"
            )
        request_id = names[0]
    name = getattr(request_id, "request_id", None) or getattr(request_id, "id", request_id)
    return source.lens(name)


def _next(lens: Any) -> list[str]:
    """Return the tokens that came next, where the lens tells them."""
    known = getattr(lens, "next_tokens", None)
    return list(known) if known is not None else list(lens.tokens)


def _short(text: str, length: int = 8) -> str:
    text = visible(text)
    return text if len(text) <= length else text[: length - 1] + "…"
