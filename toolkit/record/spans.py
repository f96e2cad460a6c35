"""Each request's life as consecutive spans: waiting and for what, computing, preempted, sending.

What timelines, waterfalls, traces and ``record.why`` draw from. Worked out on whole columns, so
that thousands of requests take less than a second.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from toolkit.errors import InvalidParameter
from toolkit.record.lives import DECODE, EMIT, PREEMPTED, PREFILL, TOKENIZE, Lives, Pieces, cut
from toolkit.record.slots import HOST, Array, Slots
from toolkit.request import WAIT_CAUSES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SPAN_COLUMNS", "SpanTables", "make_spans"]

SPAN_COLUMNS = (
    "request_id",
    "kind",
    "cause",
    "start_s",
    "end_s",
    "start_step",
    "end_step",
    "num_tokens",
    "gap_s",
)
_NO_STEP = -1
_KINDS = [*["wait"] * len(WAIT_CAUSES), "tokenize", "prefill", "decode", "preempted", "emit"]
_CAUSES = [*WAIT_CAUSES, *[""] * 5]
_ENDS = ("finished", "failed", "aborted")
# Less than the clocks tell apart: no gap.
_NOTHING_S = 1e-9


class SpanTables(Protocol):
    """The tables of a record from which spans are made."""

    @property
    def steps(self) -> pd.DataFrame:
        """That table."""

    @property
    def chunks(self) -> pd.DataFrame:
        """That table."""

    @property
    def requests(self) -> pd.DataFrame:
        """That table."""

    @property
    def events(self) -> pd.DataFrame:
        """That table."""


def make_spans(record: SpanTables, request_ids: Collection[str] | None = None) -> pd.DataFrame:
    """Return a row per span, by arrival of the requests and then by time.

    The spans of a request follow on one another from its arrival to its end, or to the last step
    while it lives. Columns:

    - kind: tokenize, wait, prefill (one row per chunk), decode, preempted, emit
    - cause: of a wait: blocks, budget, seqs, policy, grammar, host; else empty
    - start_step, end_step: of what happens outside steps, the step before, or -1
    - num_tokens: computed, recomputed ones included
    - gap_s: how much of it lay between steps, which the ledger in ``requests`` counts as
      ``wait_host_s``; long gaps are spans of their own, with the cause "host"

    Requests whose first steps are no longer kept are left out.

    Args:
        record: Its tables; it must keep chunks, so its level is "tokens" or higher.
        request_ids: Only these.

    Raises:
        InvalidParameter: a request ran, and no chunk was kept.
    """
    import pandas as pd

    slots = Slots.of(record.steps)
    requests, chunks = record.requests, record.chunks
    if not len(chunks) and requests["first_scheduled_s"].notna().any():
        raise InvalidParameter(
            "this record keeps no chunks, of which spans are made: set record.level='tokens' "
            "before the run",
            param="level",
        )
    if request_ids is not None:
        wanted = list(request_ids)
        requests = requests[requests["request_id"].isin(wanted)]
    known_from = slots.places(chunks["step"].head(1).to_numpy("int64"))
    if len(known_from):
        begun_s = requests["first_scheduled_s"].to_numpy("float64", na_value=np.nan)
        requests = requests[~(begun_s < slots.start_s[max(0, known_from[0])])]
    requests = requests.sort_values("arrival_s", kind="stable", ignore_index=True)
    owners = pd.Index(requests["request_id"])
    if request_ids is not None and len(wanted) == 1:  # a plain comparison is the fastest filter
        chunks = chunks[chunks["request_id"] == wanted[0]]
    chunks = _owned(chunks, owners, slots).sort_values(["owner", "slot"], ignore_index=True)
    events = record.events
    events = _owned(events[events["kind"].isin(("waited", "preempted"))], owners, slots)
    ends_s = _ends_s(requests, slots)
    lives = _lives(requests, chunks, slots, ends_s)
    pieces = cut(slots, lives, chunks, events)
    return _frame(requests, _Spans(requests, slots, pieces, ends_s).columns())


def _owned(rows: pd.DataFrame, owners: pd.Index[Any], slots: Slots) -> pd.DataFrame:
    """Return the rows of these owners, with the number of the owner and the slot of the step."""
    owner = owners.get_indexer(rows["request_id"])
    slot = slots.places(rows["step"].to_numpy("int64"))
    known = (owner >= 0) & (slot >= 0)
    return rows[known].assign(owner=owner[known], slot=slot[known])


def _times(requests: pd.DataFrame, name: str) -> Array:
    return requests[name].to_numpy("float64", na_value=np.nan)


def _ends_s(requests: pd.DataFrame, slots: Slots) -> Array:
    """Return when each life ended, or until when it is known."""
    known = [_times(requests, name) for name in ("finished_s", "last_token_s", "first_token_s")]
    known.append(_times(requests, "arrival_s") + requests["tokenize_s"].to_numpy("float64"))
    lives_on = ~requests["status"].isin(_ENDS).to_numpy()
    if len(slots):
        known.append(np.where(lives_on, slots.end_s[-1], np.nan))
    return np.asarray(np.fmax.reduce(known))


def _lives(requests: pd.DataFrame, chunks: pd.DataFrame, slots: Slots, ends_s: Array) -> Lives:
    queued_s = _times(requests, "queued_s")
    first: Array = np.asarray(np.searchsorted(slots.start_s, np.nan_to_num(queued_s, nan=np.inf)))
    last: Array = np.searchsorted(slots.start_s, ends_s) - 1
    # A step may take no time at all on a virtual clock: what was computed in it counts.
    owner, slot = chunks["owner"].to_numpy(), chunks["slot"].to_numpy()
    np.minimum.at(first, owner, slot)
    np.maximum.at(last, owner, slot)
    return Lives(first, last, _times(requests, "first_token_s"))


class _Spans:
    """Turns pieces of slots into seconds, and adds what happens outside steps."""

    def __init__(self, requests: pd.DataFrame, slots: Slots, pieces: Pieces, ends_s: Array) -> None:
        self._slots, self._pieces = slots, pieces
        self._num = len(requests)
        self._arrival_s = _times(requests, "arrival_s")
        self._ready_s = self._arrival_s + requests["tokenize_s"].to_numpy("float64")
        self._first_token_s = _times(requests, "first_token_s")
        self._emitted_from_s = self._first_token_s - requests["emit_s"].to_numpy("float64")
        self._ends_s = ends_s

    def columns(self) -> dict[str, Array]:
        """Return the columns but for names; ``owner`` and ``code`` stand for those."""
        parts = [self._heads(), *self._body()]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        keep = (columns["end_s"] > columns["start_s"]) | (columns["num_tokens"] > 0)
        order = np.lexsort((columns["start_s"], columns["owner"]))
        return {name: values[order][keep[order]] for name, values in columns.items()}

    def _body(self) -> list[dict[str, Array]]:
        """Return what lies in slots, and the sending of first tokens in between."""
        slots, pieces = self._slots, self._pieces
        owner = pieces.owner
        start_s = slots.start_s[pieces.start]
        is_end = np.concatenate([owner[1:] != owner[:-1], [True]])[: len(owner)]
        next_s = np.concatenate([start_s[1:], [0.0]])[: len(owner)]
        end_s = np.where(is_end, self._ends_s[owner], next_s)
        # The piece in which the first token was sampled ends when that token goes out.
        is_early = pieces.is_early & (pieces.code >= PREFILL) & (pieces.code != DECODE)
        leads = np.concatenate([~pieces.is_early[1:] | is_end[:-1], [True]])[: len(owner)]
        at = np.flatnonzero(is_early & leads & ~np.isnan(self._first_token_s[owner]))
        end_s[at] = np.minimum(end_s[at], self._emitted_from_s[owner[at]])
        after = (at + 1)[~is_end[at]]
        start_s[after] = self._first_token_s[owner[after]]

        busy_s = slots.busy_s[pieces.end + 1] - slots.busy_s[pieces.start]
        busy_s = busy_s - np.maximum(0.0, slots.end_s[pieces.end] - end_s)
        gap_s = end_s - start_s - busy_s
        # A preemption lasts through gaps, but for the one behind the step that caught up.
        behind_s = np.where(pieces.computes_last, end_s - slots.end_s[pieces.end], 0.0)
        gap_s = np.where(pieces.code == PREEMPTED, behind_s, gap_s)
        gap_s = np.where((gap_s < _NOTHING_S) | (pieces.code == HOST), 0.0, gap_s)
        body = {
            "owner": owner,
            "code": pieces.code,
            "start_s": start_s,
            "end_s": end_s,
            "start_step": slots.step[pieces.start],
            "end_step": slots.step[pieces.end],
            "num_tokens": pieces.num_tokens,
            "gap_s": gap_s,
        }
        return [body, *self._after_first(owner[at], slots.step[pieces.end[at]], is_end[at])]

    def _after_first(self, owner: Array, step: Array, is_end: Array) -> list[dict[str, Array]]:
        """Return the sending of first tokens, and the rest of lives that no step saw after it."""
        first_s = self._first_token_s[owner]
        sent = self._outside(owner, EMIT, self._emitted_from_s[owner], first_s, step=step)
        last, step = owner[is_end], step[is_end]
        rest = self._outside(last, HOST, first_s[is_end], self._ends_s[last], step=step)
        return [sent, rest]

    def _heads(self) -> dict[str, Array]:
        """Return what comes before the first step that sees a request."""
        everybody = np.arange(self._num)
        seen_s = self._ends_s.copy()
        owner, index = np.unique(self._pieces.owner, return_index=True)
        seen_s[owner] = self._slots.start_s[self._pieces.start[index]]
        parts = [
            self._outside(everybody, TOKENIZE, self._arrival_s, self._ready_s),
            self._outside(everybody, HOST, self._ready_s, seen_s),
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _outside(
        self,
        owner: Array,
        code: int,
        start_s: Array,
        end_s: Array,
        *,
        step: Array | None = None,
    ) -> dict[str, Array]:
        zeros: Array = np.zeros(len(owner), "int64")
        step = zeros + _NO_STEP if step is None else step
        return {
            "owner": owner,
            "code": zeros + code,
            "start_s": start_s,
            "end_s": end_s,
            "start_step": step,
            "end_step": step,
            "num_tokens": zeros,
            "gap_s": np.zeros(len(owner)),
        }


def _frame(requests: pd.DataFrame, columns: dict[str, Array]) -> pd.DataFrame:
    import pandas as pd

    code = columns["code"]
    names = {
        "request_id": requests["request_id"].to_numpy(object)[columns["owner"]],
        "kind": np.array(_KINDS, object)[code],
        "cause": np.array(_CAUSES, object)[code],
    }
    return pd.DataFrame({name: names.get(name, columns.get(name)) for name in SPAN_COLUMNS})
