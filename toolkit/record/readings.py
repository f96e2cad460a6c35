"""What is read off a record's tables: spans, why, summary, comparison, trace."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toolkit.record.compare import Comparison, compare_records
from toolkit.record.perfetto import write_trace
from toolkit.record.spans import SpanTables, make_spans
from toolkit.record.summary import summarise
from toolkit.record.why import Why, explain_slowness

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Readings"]


class AllTables(SpanTables, Protocol):
    """The tables that these methods read."""

    @property
    def tokens(self) -> pd.DataFrame:
        """That table."""


class Readings:
    """Methods of a record that only read its tables, so they work on live and on saved ones."""

    def spans(self: SpanTables, request_ids: Collection[str] | None = None) -> pd.DataFrame:
        """Return each request's life as consecutive rows; see `toolkit.record.spans`.

        Raises:
            InvalidParameter: the record keeps no chunks: its level is "requests".
        """
        return make_spans(self, request_ids)

    def why(self: SpanTables, request: Any) -> Why:
        """Say why a request was slow: a sentence, its causes, who is responsible, a waterfall.

        Args:
            request: A request id, an answer's id ("chatcmpl-..."), a client's X-Request-Id; or
                what ``engine.add`` or ``llm.generate`` returned.

        Raises:
            UnknownRequest: the record has no such request.
            InvalidParameter: the record keeps no chunks: its level is "requests".
        """
        name = request if isinstance(request, str) else None
        for attribute in ("request_id", "id"):
            name = getattr(request, attribute, None) if name is None else name
        return explain_slowness(self, str(request if name is None else name))

    def summary(
        self: AllTables,
        by: str | Sequence[str] | None = None,
        warmup_s: float = 0.0,
        slo: Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """Return TTFT, TPOT, ITL, E2E, throughput and goodput; see `toolkit.record.summary`.

        Raises:
            InvalidParameter: no such column or limit, or a negative time.
        """
        return summarise(self.requests, self.tokens, by=by, warmup_s=warmup_s, slo=slo)

    def compare(self: SpanTables, other: SpanTables) -> Comparison:
        """Say per request what another run of the same work did differently, and why.

        This record is "before", the other one "after".

        Raises:
            UnlikeRuns: the runs did not have the same work.
        """
        return compare_records(self, other)

    def to_perfetto(self: SpanTables, path: str | Path) -> Path:
        """Write a trace for ui.perfetto.dev; compressed where the name ends with .gz."""
        return write_trace(self, path)
