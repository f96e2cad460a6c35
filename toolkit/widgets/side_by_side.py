"""SideBySide: answers beside each other, token under token, their first difference marked."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.request import Request, RequestOutput
from toolkit.widgets.answers import is_answer, vocabulary_of
from toolkit.widgets.base import Widget
from toolkit.widgets.palette import LIGHT
from toolkit.widgets.source import open_source
from toolkit.widgets.token_paint import Paint, text_figure, text_html
from toolkit.widgets.token_table import Answer, ShownToken, token_table

__all__ = ["SideBySide"]

_HERE = Path(__file__).parent
_DIFFERS, _FIRST = LIGHT["wait_blocks"], LIGHT["preempted"]


class SideBySide(Widget):
    """Answers in columns: what differs from the first of them, token by token, is coloured.

    Args:
        outputs: Answers or requests, two or more; of each its first sample. An answer with several
            samples may also come alone: then they are compared.
        names: What the columns are called; request ids by default.
        source: Gives tokens their texts: an LLM, Engine or Server, or a tokenizer. Without one they
            have texts only where their log-probabilities were asked for.

    Raises:
        InvalidConfig: they are no answers or fewer than two, or there are not as many names.
    """

    _esm = _HERE / "side_by_side.js"
    _css = Widget._css + (_HERE / "tokens.css").read_text()

    def __init__(
        self,
        outputs: Sequence[RequestOutput | Request] | RequestOutput | Request,
        names: Sequence[str] | None = None,
        *,
        source: Any = None,
    ) -> None:
        answers = _answers(outputs)
        if len(answers) < 2:
            raise InvalidConfig("give two answers or more: there is nothing to compare")
        self.names = list(names) if names is not None else _distinct(answers)
        if len(self.names) != len(answers):
            raise InvalidConfig(f"{len(self.names)} names for {len(answers)} answers")
        vocabulary = _vocabulary(source)
        self._has_vocabulary = vocabulary is not None
        tables = [token_table(answer, vocabulary=vocabulary) for answer in answers]
        self._token_ids = [answer.token_ids for answer in answers]
        self._shown = [
            [
                ShownToken(text, kind)
                for text, kind, part in zip(t["text"], t["kind"], t["part"], strict=True)
                if part == "output"
            ]
            for t in tables
        ]
        super().__init__()

    # ---- what is compared

    @property
    def first_difference(self) -> int | None:
        """The number of the first output token that is not the same everywhere, None if all are."""
        for index in range(self._width):
            if len({ids[index] if index < len(ids) else None for ids in self._token_ids}) > 1:
                return index
        return None

    @property
    def data(self) -> pd.DataFrame:
        """A row per token number: each answer's token id and text, and whether all are the same."""
        columns: dict[str, Any] = {"index": np.arange(self._width)}
        for name, ids, shown in zip(self.names, self._token_ids, self._shown, strict=True):
            padding = [None] * (self._width - len(ids))
            columns[f"{name}.token_id"] = pd.array([*ids, *padding], dtype="Int64")
            texts = [*(token.text for token in shown), *padding]
            columns[f"{name}.text"] = pd.Series(texts, dtype=object)
        columns["is_same"] = ~self._differs().any(axis=0)
        return pd.DataFrame(columns)

    @property
    def _width(self) -> int:
        return max(map(len, self._token_ids))

    def _differs(self) -> Any:
        """Return [answers, tokens] bool: no token there, or not that of the first answer."""
        padded: Any = np.full((len(self._token_ids), self._width), -1, dtype=np.int64)
        for row, ids in enumerate(self._token_ids):
            padded[row, : len(ids)] = ids
        return padded != padded[:1]

    @property
    def _hint(self) -> str:
        """How numbers become words, where none of the tokens has a text."""
        has_words = any(token.kind != "special" for shown in self._shown for token in shown)
        return "" if has_words or self._has_vocabulary else "; source=llm gives words for numbers"

    def _summary(self) -> str:
        first = self.first_difference
        if first is None:
            return f"all {self._width} tokens are the same{self._hint}"
        said = [
            f"{name} {shown[first].text!r}" if first < len(shown) else f"{name} has ended"
            for name, shown in zip(self.names, self._shown, strict=True)
        ]
        same = int((~self._differs().any(axis=0)).sum())
        begins = {
            0: "different from the first token on",
            1: "the first token is the same, then",
        }.get(first, f"the first {first} tokens are the same, then")
        return f"{begins}: {', '.join(said)}; {same} of {self._width} places agree{self._hint}"

    # ---- shown

    def full_frame(self) -> None:
        """Send all tokens."""
        token_ids: Any = np.full((len(self.names), self._width), -1, dtype=np.int32)
        for row, ids in enumerate(self._token_ids):
            token_ids[row, : len(ids)] = ids
        first = self.first_difference
        self.send_frame(
            "columns",
            {
                "names": self.names,
                "texts": [[token.text for token in shown] for shown in self._shown],
                "kinds": [[token.kind for token in shown] for shown in self._shown],
                "width": self._width,
                "first_difference": -1 if first is None else first,
                "summary": self._summary(),
            },
            token_id=token_ids,
            differs=self._differs(),
        )

    def _paints(self) -> list[list[Paint]]:
        first = self.first_difference
        return [
            [
                Paint(
                    token.text,
                    token.kind,
                    _DIFFERS,
                    0.5 if differs else 0.0,
                    mark=_FIRST if place == first else None,
                )
                for place, (token, differs) in enumerate(zip(shown, row, strict=False))
            ]
            for shown, row in zip(self._shown, self._differs(), strict=True)
        ]

    def figure(self) -> Any:
        """Return the columns as a matplotlib Figure."""
        return text_figure(self._paints(), titles=self.names, width=48)

    def static_html(self) -> str:
        """Return the columns as HTML that needs no script."""
        cells = "".join(
            f'<td style="vertical-align:top;text-align:left;padding:0 12px 0 0">'
            f"<b>{escape(name)}</b>{text_html(tokens)}</td>"
            for name, tokens in zip(self.names, self._paints(), strict=True)
        )
        return (
            f'<div>{escape(self._summary())}<table style="width:100%;table-layout:fixed">'
            f'<tr style="background:transparent">{cells}</tr></table></div>'
        )

    def __repr__(self) -> str:
        return f"SideBySide({', '.join(self.names)}: {self._summary()})"


def _answers(outputs: Any) -> list[Answer]:
    if isinstance(outputs, RequestOutput | Request):
        count = len(outputs.samples if isinstance(outputs, Request) else outputs.outputs)
        return [Answer.of(outputs, sample) for sample in range(count)]
    if not is_answer(outputs):
        raise InvalidConfig(
            f"{type(outputs).__name__}: answers can be compared, as [llm.generate(a)[0], "
            "llm.generate(b)[0]]; a record has their tables, which record.diff(other) compares"
        )
    # A request that is one of several samples stands for itself.
    return [
        Answer.of(output, output.sample_index if isinstance(output, Request) else 0)
        for output in outputs
    ]


def _distinct(answers: Sequence[Answer]) -> list[str]:
    """Return a name for each answer; ids of different engines may be the same."""
    ids = [answer.request_id for answer in answers]
    if len(set(ids)) == len(ids):
        return ids
    return [f"{number}: {request_id}" for number, request_id in enumerate(ids, start=1)]


def _vocabulary(source: Any) -> Any:
    if source is None or hasattr(source, "token_bytes"):
        return source
    return vocabulary_of(open_source(source))
