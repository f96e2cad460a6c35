"""SamplerLab: one distribution, a slider for every parameter, bars before and after each step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig, ToolkitError
from toolkit.record import Record
from toolkit.request import Request, RequestOutput, SamplingParams
from toolkit.sampling import Stages
from toolkit.widgets.answers import vocabulary_of
from toolkit.widgets.base import Widget
from toolkit.widgets.fallback import PALE, bar_row, legend, new_figure
from toolkit.widgets.lab import CONTROLS, Lab, Place, raw_logits
from toolkit.widgets.palette import LIGHT
from toolkit.widgets.source import Source, open_source
from toolkit.widgets.token_paint import visible

__all__ = ["SamplerLab"]

_HERE = Path(__file__).parent
NUM_DRAWS = 500  # of one click
_NUM_DRAWN = 25  # tokens in a picture


class SamplerLab(Widget):
    """What the sampler makes of one distribution, step by step, under parameters that you move.

    The steps are the sampler's own (``toolkit.sampling.sampling_stages``), and so is the draw: a
    token of an answer comes out as it was sampled.

    >>> lab = SamplerLab([2.0, 1.0, 0.5, -1.0])
    >>> lab.set(top_k=2)
    >>> [(stage.name, stage.kept) for stage in lab.stages.stages if stage.changed]
    [('top-k', 2)]

    Args:
        source: Logits [vocab] (tensor, array, list), or an LLM, Engine or Server that computes
            them.
        prompt: With an engine: the text, or token ids, whose next token is chosen; or an answer or
            request, with ``token``.
        token: Which of the answer's output tokens, from 0.
        sample: Of which of the answer's samples.
        params: Where the sliders begin; a Request brings its own.
        tokenizer: Gives tokens their texts where the source has none.

    Raises:
        InvalidConfig: ``source`` and ``prompt`` do not go together, or there are no logits.
        InvalidParameter: the logits are no single row.
        InvalidRequest: the prompt cannot be served, or there is no such token.
    """

    _esm = _HERE / "sampler_lab.js"
    _css = Widget._css + (_HERE / "tokens.css").read_text()

    def __init__(
        self,
        source: Any,
        prompt: str | Sequence[int] | RequestOutput | Request | None = None,
        token: int | None = None,
        *,
        sample: int = 0,
        params: SamplingParams | None = None,
        tokenizer: Any = None,
    ) -> None:
        is_engine = any(hasattr(source, name) for name in ("engine", "step"))
        if isinstance(source, str | PathLike | Record) or source is None:
            raise InvalidConfig(
                f"{type(source).__name__}: a record holds no logits. Give a row of them, or the "
                "LLM that computes them: SamplerLab(llm, 'Once upon a'), or SamplerLab(llm, "
                "output, token=3) for a token of an answer"
            )
        opened = open_source(source) if is_engine or isinstance(source, Source) else None
        self._vocabulary = vocabulary_of(opened, tokenizer)
        if opened is None:
            if prompt is not None:
                raise InvalidConfig("logits need no prompt; give an LLM to compute them from one")
            self._lab = Lab(source, Place(params=params or SamplingParams(max_tokens=1)))
        else:
            self._lab = _computed(opened, prompt, token, sample=sample, params=params)
        self._error = ""
        super().__init__()
        self.on_message("set", lambda message: self._try(lambda: self.set(**message["values"])))
        self.on_message("redraw", lambda message: self._try(self.redraw))
        self.on_message("reseed", lambda message: self._try(self._reseed))
        self.on_message("draw", lambda message: self._try(self.draw))
        self.on_message("reset", lambda message: self._try(self.reset))

    # ---- what can be done

    def set(self, **values: Any) -> None:
        """Move sliders: temperature, top_k, ..., seed, position, sample_index; bias={token: by}."""
        self._lab.change(values)
        self._show()

    def redraw(self) -> None:
        """Draw again, with the random numbers of the next position."""
        self.set(position=int(self._lab.values["position"]) + 1)

    def draw(self, count: int = NUM_DRAWS) -> None:
        """Draw at ``count`` further positions, to hold against the probabilities."""
        self._lab.draw(count)
        self._show()

    def reset(self) -> None:
        """Turn every parameter off."""
        self._lab.reset()
        self._show()

    def _reseed(self) -> None:
        self.set(seed=random.getrandbits(32))

    # ---- what is shown

    @property
    def params(self) -> SamplingParams:
        """The parameters as the sliders stand, to generate with."""
        return self._lab.params

    @property
    def stages(self) -> Stages:
        """What each step made of the logits."""
        return self._lab.stages

    @property
    def token_id(self) -> int:
        """The token that is chosen."""
        return self._lab.stages.token_id

    @property
    def data(self) -> pd.DataFrame:
        """A row per token with a bar: its probability after each step that did something."""
        lab = self._lab
        token_ids = lab.shown_ids()
        columns: dict[str, Any] = {
            "token_id": token_ids,
            "text": [self._text(token_id) for token_id in token_ids],
            "logit_raw": lab.stages.stages[0].logits[token_ids].numpy(),
        }
        rows = lab.probabilities(token_ids)
        columns["probability_raw"] = rows[0]
        for stage, row in zip(lab.stages.stages, rows, strict=True):
            if stage.changed:
                columns[f"after {stage.name}"] = row
        columns["probability_final"] = rows[-1]
        columns["is_kept"] = lab.kept(token_ids)[-1]
        columns["is_chosen"] = np.asarray(token_ids) == self.token_id
        columns["num_drawn"] = [lab.drawn[token_id] for token_id in token_ids]
        return pd.DataFrame(columns)

    def full_frame(self) -> None:
        """Send the distribution after every step."""
        lab = self._lab
        token_ids = lab.shown_ids()
        stages = lab.stages.stages
        self.send_frame(
            "lab",
            {
                "controls": [control.meta for control in CONTROLS],
                "values": lab.values,
                "bias": lab.bias,
                "first_position": lab.place.position,
                "tokens": [[token_id, self._text(token_id)] for token_id in token_ids],
                "stages": [
                    {"name": stage.name, "changed": stage.changed, "kept": stage.kept}
                    for stage in stages
                ],
                "token_id": self.token_id,
                "sampled_id": lab.place.sampled_id,
                "vocab_size": len(lab.logits),
                "num_hidden": len(lab.logits) - len(token_ids),
                "num_draws": lab.num_draws,
                "draw": self._draw_text(),
                "error": self._error,
            },
            probability=lab.probabilities(token_ids),
            kept=lab.kept(token_ids),
            drawn=np.asarray([lab.drawn[token_id] for token_id in token_ids], dtype=np.int32),
        )

    def _show(self) -> None:
        self._error = ""
        self.full_frame()

    def _try(self, action: Any) -> None:
        """Do what the page asks; a value that is not possible is told, and the old ones stay."""
        try:
            action()
        except ToolkitError as error:
            self._error = str(error)
            self.full_frame()

    def _draw_text(self) -> str:
        lab = self._lab
        chosen = visible(self._text(self.token_id))
        if lab.stages.is_greedy:
            said = f"greedy: {chosen}, the largest logit"
        else:
            seed, position = int(lab.values["seed"]), int(lab.values["position"])
            said = f"seed {seed} at position {position} draws {chosen}"
        if lab.num_draws:
            said += f"; ticks: {lab.num_draws:,} draws"
        return said

    def _text(self, token_id: int) -> str:
        if self._vocabulary is None:
            return f"⟨{token_id}⟩"
        return self._vocabulary.token_text(token_id)

    # ---- without a page

    def figure(self) -> Any:
        """Return the first and the last distribution as a matplotlib Figure."""
        table = self.data.head(_NUM_DRAWN)
        places = np.arange(len(table))
        figure = new_figure(6.0, 0.2 * len(table) + 1.2)
        axes = figure.add_subplot()
        axes.barh(places, table["probability_raw"], 0.8, color=PALE, label="before the chain")
        colours = np.where(table["is_chosen"], LIGHT["prefill"], LIGHT["decode"])
        axes.barh(places, table["probability_final"], 0.4, color=colours, label="after it")
        if self._lab.num_draws:
            shares = table["num_drawn"] / self._lab.num_draws
            axes.plot(shares, places, "|", color="black", ms=9, label="share of draws")
        labels = [visible(text) for text in table["text"]]
        axes.set_yticks(places, labels, fontsize=8, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlabel("probability")
        axes.set_title(self._draw_text(), fontsize=9, loc="left", parse_math=False)
        axes.legend(fontsize=8, loc="lower right")
        return figure

    def static_html(self) -> str:
        """Return the first and the last distribution as bars that need no script."""
        table = self.data.head(_NUM_DRAWN)
        most = max(table["probability_raw"].max(), table["probability_final"].max(), 1e-9)
        rows = "".join(
            bar_row(
                visible(row.text),
                before=row.probability_raw / most,
                after=row.probability_final / most,
                number=f"{row.probability_final:.1%}" if row.is_kept else "cut",
                colour=LIGHT["prefill"] if row.is_chosen else LIGHT["decode"],
            )
            for row in table.itertuples()
        )
        key = legend(
            [
                ("before the chain", PALE),
                ("after it", LIGHT["decode"]),
                ("chosen", LIGHT["prefill"]),
            ]
        )
        more = len(self._lab.logits) - len(table)
        rest = f"<div>{more:,} more tokens</div>" if more else ""
        return (
            f"<div><b>{escape(self._draw_text())}</b></div>"
            f'<div style="max-width:600px">{rows}{rest}</div>{key}'
        )

    def __repr__(self) -> str:
        kept = self.stages.stages[-1].kept
        return f"SamplerLab({kept} of {len(self._lab.logits)} tokens kept; {self._draw_text()})"


def _computed(
    source: Source,
    prompt: Any,
    token: int | None,
    *,
    sample: int,
    params: SamplingParams | None,
) -> Lab:
    """Let the engine compute the logits of a prompt's next token, or of an answer's token."""
    if source.engine is None:
        raise InvalidConfig("a record holds no logits; give the LLM, or logits")
    if prompt is None:
        raise InvalidConfig("give a prompt: SamplerLab(llm, 'Once upon a')")
    if not isinstance(prompt, RequestOutput | Request):
        if token is not None:
            raise InvalidConfig("token= chooses a token of an answer; the prompt is none")
        logits, token_ids = raw_logits(source.engine, prompt)
        return Lab(logits, Place(token_ids, params=params or SamplingParams(max_tokens=1)))
    place = Place.of_token(prompt, token or 0, sample=sample, seed=_seed_of(source, prompt))
    if params is not None:
        place = replace(place, params=params)
    logits, _ = raw_logits(source.engine, [*place.prompt_token_ids, *place.output_token_ids])
    return Lab(logits, place)


def _seed_of(source: Source, output: RequestOutput | Request) -> int | None:
    """Return the seed that an answer was drawn with, as the record tells it."""
    if isinstance(output, Request):
        return output.seed
    requests = source.record.requests
    seeds = requests[requests["request_id"] == output.request_id]["seed"]
    return int(seeds.iloc[0]) if len(seeds) else None
