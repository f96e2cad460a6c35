"""TokenView: the text of a request, each token coloured by what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig, ToolkitError
from toolkit.widgets.answers import Answers, is_answer
from toolkit.widgets.base import Widget
from toolkit.widgets.fallback import legend
from toolkit.widgets.token_paint import (
    MODES,
    SOURCE_COLOURS,
    modes_of,
    paints,
    text_figure,
    text_html,
)
from toolkit.widgets.token_table import SOURCES, Answer, token_table

__all__ = ["TokenView"]

_HERE = Path(__file__).parent
# A page of text; more would make it slow to hover over.
MAX_SHOWN = 5000
_NO_NUMBERS = (
    "no probabilities were recorded: ask for them with SamplingParams(logprobs=0), or set "
    'record.level = "explain"'
)


class TokenView(Widget):
    """The tokens of a request as text: hover for numbers, click for why it was chosen.

    Coloured by probability, rank, entropy or source, as far as they are known: an answer knows its
    log-probabilities if they were asked for, a record its sources too. A character that is spread
    over tokens stands on the one that completes it.

    Args:
        source: An answer, a list of answers, or where they are: an LLM, Engine, Server, Record or
            the path of a saved one.
        request: Which: an answer or a request's id; the last one that has tokens by default. Where
            ``source`` is an answer, an LLM here gives it texts and explanations.
        tokenizer: Gives tokens their texts where the source has none.
        explain: Called as ``explain(answer_or_id, token=3, sample=0)`` when a token is clicked; by
            default the LLM's, or the sampler's.

    Raises:
        InvalidRequest: there is no such request.
    """

    _esm = _HERE / "token_view.js"
    _css = Widget._css + (_HERE / "tokens.css").read_text()

    def __init__(
        self,
        source: Any,
        request: Any = None,
        *,
        tokenizer: Any = None,
        explain: Callable[..., Any] | None = None,
    ) -> None:
        given = None
        if is_answer(source):
            source, given = (None if is_answer(request) else request), source
        elif is_answer(request):
            given = request
        self._answers = Answers(source, given, tokenizer)
        self._explain = explain
        wanted = request if isinstance(request, str) and given is None else None
        self._request_id = wanted if wanted is not None else self._answers.newest()
        self._mode: str | None = None
        self._num_sent = -1
        self._is_final = False  # what was sent last was all there will be
        self._explained: dict[str, Any] | None = None
        self._table()  # an id that is not there is told now, not when a page opens
        super().__init__()
        self.on_message("request", self._on_request)
        self.on_message("mode", lambda message: self._keep_mode(message["mode"]))
        self.on_message("explain", self._on_explain)

    # ---- what is shown

    @property
    def request_id(self) -> str | None:
        """The request that is shown; assign another id to show that."""
        return self._request_id

    @request_id.setter
    def request_id(self, request_id: str) -> None:
        self._answers.answer(request_id)
        self._request_id = request_id
        self._explained = None
        self.refresh()

    @property
    def colour_by(self) -> str:
        """What the colours say: "probability", "rank", "entropy", "source" or "plain"."""
        known = modes_of(self._table())
        return self._mode if self._mode in known else known[0]

    @colour_by.setter
    def colour_by(self, mode: str) -> None:
        self._keep_mode(mode)
        self.refresh()

    @property
    def data(self) -> pd.DataFrame:
        """A row per token of prompt and output."""
        return self._table()

    @property
    def is_live(self) -> bool:
        """Whether the request shown may get more tokens."""
        return self._grows or not self._is_final

    # ---- messages

    def tick(self) -> None:
        """Send the text again when it has grown, and once more when it is whole."""
        if not self._grows or len(self._table()) != self._num_sent:
            self._send_tokens()

    def full_frame(self) -> None:
        """Send the tokens, and the explanation that was open."""
        self._send_tokens()
        if self._explained is not None:
            self.send_frame("explanation", self._explained)

    def _on_request(self, message: dict[str, Any]) -> None:
        self.request_id = str(message["request_id"])

    def _keep_mode(self, mode: str) -> None:
        if mode not in MODES:
            raise InvalidConfig(f"colour_by={mode!r} is not one of {', '.join(MODES)}")
        self._mode = mode

    def _on_explain(self, message: dict[str, Any]) -> None:
        row = int(message["row"])
        self._explained = {"row": row, "html": self._explanation(row)}
        self.send_frame("explanation", self._explained)

    def _explanation(self, row: int) -> str:
        """Return HTML that says why a token was chosen, or why that cannot be said."""
        token = self._table().iloc[row]
        if token["part"] == "prompt":
            return "A token of the prompt was given, not chosen."
        try:
            found = self._explained_by(int(token["index"]), int(token["position"]))
        except ToolkitError as error:
            return f'<span class="tk-error">{escape(str(error))}</span>'
        if hasattr(found, "_repr_html_"):
            return str(found._repr_html_())
        return f"<pre>{escape(repr(found))}</pre>"

    def _explained_by(self, index: int, position: int) -> Any:
        answer, sample = self._answers.request(str(self._request_id))
        source = self._answers.source
        explain = self._explain or getattr(source and source.llm, "explain", None)
        if explain is not None:
            return explain(answer, token=index, sample=sample)
        return source.engine.sampler.explain(self._request_id, position)  # type: ignore[union-attr]

    @property
    def _explains(self) -> bool:
        source = self._answers.source
        return (
            self._explain is not None
            or hasattr(source and source.llm, "explain")
            or hasattr(getattr(source and source.engine, "sampler", None), "explain")
        )

    def _send_tokens(self) -> None:
        self._is_final = not self._grows  # asked before the tokens are read
        table = self._table()
        self._num_sent = len(table)
        shown = table.iloc[-MAX_SHOWN:]
        names = {name: number for number, name in enumerate(SOURCES)}
        names_listed = self._answers.listed()
        if self._request_id is not None and self._request_id not in names_listed:
            names_listed.insert(0, self._request_id)
        self.send_frame(
            "tokens",
            {
                "texts": shown["text"].tolist(),
                "kinds": shown["kind"].tolist(),
                "first_row": len(table) - len(shown),
                "num_prompt": int((shown["part"] == "prompt").sum()),
                "request_id": self._request_id,
                "requests": names_listed,
                "modes": modes_of(table),
                "mode": self.colour_by,
                "title": self._title(table),
                "note": self._note(table),
                "explains": self._explains,
            },
            token_id=shown["token_id"].to_numpy(),
            position=shown["position"].to_numpy(),
            logprob=shown["logprob_raw"].to_numpy(dtype=np.float32),
            rank=shown["rank_raw"].fillna(-1).to_numpy(dtype=np.int32),
            entropy=shown["entropy_nats"].to_numpy(dtype=np.float32),
            step=shown["step"].fillna(-1).to_numpy(dtype=np.int32),
            source=shown["source"].map(names).fillna(-1).to_numpy(dtype=np.int8),
            is_cached=shown["is_cached"].to_numpy(dtype=np.uint8),
        )

    # ---- inside

    @property
    def _grows(self) -> bool:
        """Whether the request that is shown is unfinished."""
        return self._request_id is not None and self._answers.is_unfinished(self._request_id)

    def _table(self) -> pd.DataFrame:
        if self._request_id is None:
            return token_table(Answer("", ()))
        answer = self._answers.answer(self._request_id)
        return token_table(
            answer,
            vocabulary=self._answers.vocabulary,
            recorded=self._answers.recorded(answer.request_id),
        )

    def _title(self, table: pd.DataFrame) -> str:
        if self._request_id is None:
            return "no request has tokens yet"
        answer = self._answers.answer(self._request_id)
        num_prompt = answer.num_hidden + len(answer.prompt_token_ids)
        cached = f", {answer.num_cached_tokens} from the cache" if answer.num_cached_tokens else ""
        return (
            f"{self._request_id}: {num_prompt} prompt tokens{cached}, "
            f"{len(answer.token_ids)} output tokens"
        )

    def _note(self, table: pd.DataFrame) -> str:
        notes = []
        if len(table) > MAX_SHOWN:
            notes.append(f"the last {MAX_SHOWN:,} of {len(table):,} tokens")
        if len(table) and not table["logprob_raw"].notna().any():
            notes.append(_NO_NUMBERS)
        if self._request_id is not None and self._answers.answer(self._request_id).num_hidden:
            notes.append("a record holds no prompts: TokenView(answer, llm) shows this one's too")
        return "; ".join(notes)

    # ---- without a page

    def figure(self) -> Any:
        """Return the text as a matplotlib Figure, in the colours that are shown."""
        table = self._table()
        figure = text_figure([paints(table, self.colour_by)], titles=[self._heading(table)])
        if sources := self._sources(table):
            from matplotlib.patches import Patch

            handles = [Patch(color=colour, label=name) for name, colour in sources]
            look: dict[str, Any] = {"fontsize": 7, "frameon": False, "borderaxespad": 0}
            figure.legend(handles=handles, loc="lower right", ncols=len(handles), **look)
        return figure

    def static_html(self) -> str:
        """Return the text as HTML that needs no script."""
        table = self._table()
        shown = table.iloc[-MAX_SHOWN:]
        text = text_html(paints(shown, self.colour_by))
        key = legend(self._sources(shown))
        return f"<div><b>{escape(self._heading(table))}</b>{text}{key}</div>"

    def _sources(self, table: pd.DataFrame) -> list[tuple[str, str]]:
        """Return what the colours of the sources that are shown mean."""
        if self.colour_by != "source":
            return []
        present = set(table["source"].dropna())
        return [(name, colour) for name, colour in SOURCE_COLOURS.items() if name in present]

    def _heading(self, table: pd.DataFrame) -> str:
        known = len(table) > 0 and self.colour_by != "plain"
        return self._title(table) + (f"; coloured by {self.colour_by}" if known else "")

    def __repr__(self) -> str:
        return f"TokenView({self._title(self._table())})"
