"""Find the answers that a token widget shows, in whatever a user hands to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from toolkit.errors import InvalidRequest
from toolkit.request import Request, RequestOutput
from toolkit.widgets.source import Source, open_source
from toolkit.widgets.token_table import Answer, Vocabulary

__all__ = ["Answers", "is_answer", "vocabulary_of"]

# The chooser lists the newest; a list of thousands could not be used.
MAX_LISTED = 200


def is_answer(value: Any) -> bool:
    """Whether this is an answer, or a list of answers, and no source."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value):
        return all(isinstance(one, RequestOutput | Request) for one in value)
    return isinstance(value, RequestOutput | Request)


def vocabulary_of(source: Source | None, tokenizer: Any = None) -> Vocabulary | None:
    """Return what gives tokens their texts: the tokenizer given, or that of the source."""
    if tokenizer is not None:
        return getattr(tokenizer, "tokenizer", tokenizer)
    engine = source.engine if source is not None else None
    text = getattr(engine, "text", None)
    return text if hasattr(text, "token_bytes") else None


class Answers:
    """The answers at hand: those given, and those of a source.

    Args:
        source: An engine or a record, in any of the forms that widgets take; None where there are
            only the answers.
        given: Outputs or requests; with None, the requests of the record.
        tokenizer: Gives tokens their texts; by default the engine's.
    """

    def __init__(self, source: Any, given: Any, tokenizer: Any = None) -> None:
        self.source = None if source is None else open_source(source)
        self.vocabulary = vocabulary_of(self.source, tokenizer)
        self._given: dict[str, tuple[RequestOutput | Request, int]] = {}
        self._met: dict[str, tuple[Request, int]] = {}  # that were unfinished when shown first
        # The rows of one request, as far as the record was read, and which rewind they are of.
        self._rows: pd.DataFrame | None = None
        self._followed: tuple[str, int] | None = None
        self._cursor = 0
        several = [given] if isinstance(given, RequestOutput | Request) else given or ()
        for output in several:
            self._keep(output)

    def _keep(self, output: RequestOutput | Request) -> None:
        if isinstance(output, Request):
            # The sample that was given comes first.
            for sample in sorted(output.samples, key=lambda one: one is not output):
                self._given[sample.id] = (output, output.samples.index(sample))
            return
        for place in range(len(output.outputs)):
            name = f"{output.request_id}.{place}" if place else output.request_id
            self._given[name] = (output, place)

    def listed(self) -> list[str]:
        """Return the names that can be chosen: those given, else the newest of the record."""
        if self._given or self.source is None:
            return list(self._given)
        requests = self.source.record.requests
        return [str(name) for name in requests["request_id"].tail(MAX_LISTED)][::-1]

    def newest(self) -> str | None:
        """Return what to show first: the first given, else the last that has tokens."""
        if self._given:
            return next(iter(self._given))
        if self.source is None:
            return None
        requests = self.source.record.requests
        made = requests[requests["num_output_tokens"] > 0]["request_id"]
        return str(made.iloc[-1]) if len(made) else None

    def answer(self, name: str) -> Answer:
        """Return the answer of that name, as far as it is known now.

        Raises:
            InvalidRequest: neither the answers given nor the record have it.
        """
        if name in self._given:
            output, sample = self._given[name]
            return Answer.of(output, sample)
        live = self._live(name)
        if live is not None:
            # Kept: the record of one that has ended does not hold its prompt.
            self._met[name] = (live, live.samples.index(live))
        if name in self._met:
            return Answer.of(*self._met[name])
        return self._recorded_answer(name)

    def is_unfinished(self, name: str) -> bool:
        """Whether that answer may grow."""
        return self._live(name) is not None

    def recorded(self, request_id: str) -> pd.DataFrame | None:
        """Return the rows of the tokens table of one request, if a record is at hand.

        Only what came since the last call is read: a view that follows a request asks often.
        """
        if self.source is None:
            return None
        record = self.source.record
        if self._followed != (request_id, record.generation):
            self._followed, self._cursor, self._rows = (request_id, record.generation), 0, None
        new, self._cursor = record.since("tokens", self._cursor)
        new = new[new["request_id"] == request_id]
        if self._rows is None:
            self._rows = new
        elif len(new):
            self._rows = pd.concat([self._rows, new])
        return self._rows

    def request(self, name: str) -> tuple[Any, int]:
        """Return what explains itself: an output or request and its sample, or an id and 0."""
        return self._given.get(name, (name, 0))

    def _live(self, request_id: str) -> Request | None:
        engine = self.source.engine if self.source is not None else None
        scheduler = getattr(engine, "scheduler", None)
        return scheduler.get(request_id) if scheduler is not None else None

    def _recorded_answer(self, name: str) -> Answer:
        tokens = self.recorded(name)
        requests = self.source.record.requests if self.source is not None else pd.DataFrame()
        row = requests[requests["request_id"] == name] if len(requests) else requests
        if tokens is None or not len(row):
            raise InvalidRequest(f"there is no request {name!r} here; there are {self._some()}")
        return Answer(
            request_id=name,
            token_ids=tuple(tokens.sort_values("index")["token_id"].astype(int)),
            num_hidden=int(row["num_prompt_tokens"].iloc[0]),
            num_cached_tokens=int(row["num_cached_tokens"].iloc[0]),
        )

    def _some(self) -> str:
        names = self.listed()
        return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "none"
