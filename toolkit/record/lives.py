"""Cut the lives of requests into pieces of consecutive slots, all requests at once.

A request's life is known by what happened to it: tokens were computed in a step (a chunk), it lost
its blocks, its cause of waiting changed. Whatever lies between is waiting, for what limited those
steps. The pieces are arrays sorted by request, then slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.record.slots import Array, Slots
from toolkit.request import WAIT_CAUSES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DECODE", "EMIT", "PREEMPTED", "PREFILL", "TOKENIZE", "Lives", "Pieces", "cut"]

# Below these, a piece is waiting: its code is the place of the cause in WAIT_CAUSES.
TOKENIZE, PREFILL, DECODE, PREEMPTED, EMIT = range(len(WAIT_CAUSES), len(WAIT_CAUSES) + 5)
# Of what begins in one slot, the one that says most.
_BEGIN, _AFTER_CHUNK, _LOST, _WAITED, _CHUNK = range(5)
# A piece that waits for whatever limits its steps.
_LINE = -1


@dataclass(frozen=True, slots=True)
class Lives:
    """Of each request: when it lived; arrays of one length."""

    first: Array  # slot in which it is seen first
    last: Array  # last slot of its life
    first_token_s: Array  # NaN: it has none


@dataclass(frozen=True, slots=True)
class Pieces:
    """Slots [start, end] of an owner and what they were; arrays of one length."""

    owner: Array
    start: Array
    end: Array
    code: Array
    num_tokens: Array
    is_early: Array  # before the first token
    computes_last: Array  # tokens, in its last slot

    def __getitem__(self, which: Any) -> Pieces:
        return Pieces(
            self.owner[which],
            self.start[which],
            self.end[which],
            self.code[which],
            self.num_tokens[which],
            self.is_early[which],
            self.computes_last[which],
        )


@dataclass(frozen=True, slots=True)
class Happenings:
    """Something of one kind that happened to requests; arrays of one length."""

    owner: Array
    slot: Array
    kind: int
    code: Array
    num_tokens: Array


def cut(slots: Slots, lives: Lives, chunks: pd.DataFrame, events: pd.DataFrame) -> Pieces:
    """Return all pieces of all lives; they leave no gap and do not overlap.

    Args:
        slots: The axis.
        lives: The requests.
        chunks: Columns owner, slot, start, end, is_recomputed; sorted by owner, then slot.
        events: Columns owner, slot, kind ("waited" or "preempted") and detail.
    """
    pieces = _filled(slots, lives, _boundaries(lives, chunks, events))
    lost = events[events["kind"] == "preempted"]
    pieces = _with_preempted(pieces, chunks, lost, width=len(slots) + 2)
    return _merged(pieces)


def _boundaries(lives: Lives, chunks: pd.DataFrame, events: pd.DataFrame) -> list[Happenings]:
    owner, slot = chunks["owner"].to_numpy(), chunks["slot"].to_numpy()
    num_tokens = (chunks["end"] - chunks["start"]).to_numpy()
    lost = events[events["kind"] == "preempted"]
    waited = events[events["kind"] == "waited"]
    codes = {**{cause: code for code, cause in enumerate(WAIT_CAUSES)}, "line": _LINE}
    codes["sibling"] = codes["policy"]  # a rule of the scheduler's
    causes = np.array([codes.get(detail, _LINE) for detail in waited["detail"]], "int64")

    def plain(owner: Array, slot: Array, kind: int) -> Happenings:
        zeros: Array = np.zeros(len(owner), "int64")
        return Happenings(owner, slot, kind, zeros + _LINE, zeros)

    return [
        plain(np.arange(len(lives.first)), lives.first, _BEGIN),
        plain(owner, slot + 1, _AFTER_CHUNK),
        plain(lost["owner"].to_numpy(), lost["slot"].to_numpy(), _LOST),
        Happenings(
            waited["owner"].to_numpy(),
            waited["slot"].to_numpy(),
            _WAITED,
            causes,
            np.zeros(len(waited), "int64"),
        ),
        Happenings(owner, slot, _CHUNK, np.full(len(owner), DECODE), num_tokens),
    ]


def _filled(slots: Slots, lives: Lives, happenings: list[Happenings]) -> Pieces:
    """Let each happening last until the next one; split waiting where its cause changes."""
    owner = np.concatenate([h.owner for h in happenings])
    slot = np.concatenate([h.slot for h in happenings])
    kind = np.concatenate([np.full(len(h.owner), h.kind) for h in happenings])
    code = np.concatenate([h.code for h in happenings])
    num_tokens = np.concatenate([h.num_tokens for h in happenings])
    keys = owner * (len(slots) + 2) + slot
    order = np.argsort(keys * 8 + kind)
    keys = keys[order]
    is_last = np.concatenate([keys[1:] != keys[:-1], [True]])[: len(keys)]
    order = order[is_last]
    order = order[slot[order] <= lives.last[owner[order]]]
    owner, start, code, kind = owner[order], slot[order], code[order], kind[order]
    is_end = np.concatenate([owner[1:] != owner[:-1], [True]])[: len(owner)]
    end = np.where(is_end, lives.last[owner], np.concatenate([start[1:] - 1, [0]])[: len(owner)])

    is_chunk = kind == _CHUNK
    count = np.where(is_chunk, 1, slots.run[end] - slots.run[start] + 1)
    source: Array = np.repeat(np.arange(len(owner)), count)
    nth = np.arange(len(source)) - np.repeat(np.cumsum(count) - count, count)
    run = slots.run[start[source]] + nth
    run_end: Array = np.append(slots.run_start[1:], len(slots)) - 1
    owner, code = owner[source], code[source]
    split_start = np.maximum(start[source], slots.run_start[run])
    split_end = np.where(is_chunk[source], start[source], np.minimum(end[source], run_end[run]))
    of_line = (code == _LINE) | slots.is_gap[split_start]
    code = np.where(of_line & ~is_chunk[source], slots.cause[split_start], code)
    first_token_s = lives.first_token_s[owner]
    # A gap is early when it ends before the token, which is sent in the gap behind its step.
    reached_s = np.where(slots.is_gap, slots.end_s, slots.start_s)[split_start]
    is_early = ~(reached_s >= first_token_s)
    code = np.where(is_chunk[source] & is_early, PREFILL, code)
    num_tokens = num_tokens[order][source]
    return Pieces(owner, split_start, split_end, code, num_tokens, is_early, num_tokens > 0)


def _with_preempted(
    pieces: Pieces, chunks: pd.DataFrame, lost: pd.DataFrame, *, width: int
) -> Pieces:
    """Mark what lies between the loss of blocks and the chunk that has caught up again."""
    if not len(lost):
        return pieces
    lost_keys = np.sort((lost["owner"] * width + lost["slot"]).to_numpy("int64"))
    keys = (chunks["owner"] * width + chunks["slot"]).to_numpy("int64")
    reached = chunks.groupby("owner")["end"].cummax().to_numpy("int64")
    # How far the owner had got before each loss: what it must reach again.
    before = np.searchsorted(keys, lost_keys) - 1
    has_before = (before >= 0) & (keys[before] // width == lost_keys // width)
    target = np.where(has_before, reached[before], 0)

    latest = np.searchsorted(lost_keys, keys, side="right") - 1
    follows = (latest >= 0) & (lost_keys[latest] // width == keys // width)
    again = chunks["is_recomputed"].to_numpy("bool")
    is_there = follows & (~again | (chunks["end"].to_numpy() >= target[latest]))
    # The first slot after each loss that is no longer part of it.
    back = (lost_keys // width + 1) * width
    np.minimum.at(back, latest[is_there], (keys + again)[is_there])

    piece_keys = pieces.owner * width + pieces.start
    latest = np.searchsorted(lost_keys, piece_keys, side="right") - 1
    is_lost = (latest >= 0) & (lost_keys[latest] // width == piece_keys // width)
    is_lost &= piece_keys < back[latest]
    return replace(pieces, code=np.where(is_lost, PREEMPTED, pieces.code))


def _merged(pieces: Pieces) -> Pieces:
    """Join neighbours of one kind; a prompt's chunks stay apart."""
    if not len(pieces.owner):
        return pieces
    like = pieces.owner * 32 + pieces.code * 2 + pieces.is_early
    is_new = np.concatenate([[True], like[1:] != like[:-1]]) | (pieces.code == PREFILL)
    starts = np.flatnonzero(is_new)
    ends: Array = np.append(starts[1:], len(is_new)) - 1
    return replace(
        pieces[starts],
        end=pieces.end[ends],
        num_tokens=np.add.reduceat(pieces.num_tokens, starts),
        computes_last=pieces.computes_last[ends],
    )
