"""Take back the end of a record: its tables as they were before a step."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from toolkit.record.block_states import computed_until
from toolkit.record.holdings import CACHED_STILL, NEVER
from toolkit.record.log import Rows, select
from toolkit.record.selection import Tables

__all__ = ["before_step"]


def before_step(
    tables: Tables, step: int, live: Collection[str] = (), *, block_size: int = 1
) -> Tables:
    """Drop steps from ``step`` on, and what happened in or after them.

    A request stays if it had ended before; of one that ended later, the row says what became of
    it, so it goes, and so do those in ``live``. Holdings of blocks stand as they stood then.
    """
    requests = tables["requests"]
    ended = (requests["ended_step"] != NEVER) & (requests["ended_step"] < step)
    ended &= np.array([name not in live for name in requests["request_id"]], bool)
    kept = {
        table: select(tables[table], tables[table]["step"] < step)
        for table in ("steps", "chunks", "tokens", "events")
    }
    blocks = select(tables["blocks"], tables["blocks"]["start_step"] < step)
    _open_again(blocks, step)
    _count_hits_again(blocks)
    _fill_again(blocks, computed_until(kept["chunks"], step - 1), block_size)
    _forget_names(blocks, kept["events"])
    return {**kept, "requests": select(requests, ended), "blocks": blocks}


def _open_again(blocks: Rows, step: int) -> None:
    """Undo what ended holdings, and reuse, since the step."""
    reopened = blocks["end_step"] >= step
    blocks["end_step"] = np.where(reopened, NEVER, blocks["end_step"])
    blocks["end_s"] = np.where(reopened, np.nan, blocks["end_s"])
    blocks["end_why"] = np.where(reopened, None, blocks["end_why"])
    until = blocks["cached_until_step"]
    revived = ~reopened & (until >= step) & (until != CACHED_STILL)
    blocks["cached_until_step"] = np.where(reopened, NEVER, np.where(revived, CACHED_STILL, until))
    blocks["is_evicted"] = np.where(reopened | revived, 0, blocks["is_evicted"]).astype(np.int8)


def _count_hits_again(blocks: Rows) -> None:
    """Count for each holding that wrote a block how many holdings found it."""
    hits: np.ndarray = np.zeros(len(blocks["block_id"]), blocks["num_hits"].dtype)
    writers: dict[int, int] = {}
    for row, (block_id, how) in enumerate(zip(blocks["block_id"], blocks["how"], strict=True)):
        if how in ("new", "copied"):
            writers[block_id] = row
        elif block_id in writers:
            hits[writers[block_id]] += 1
    blocks["num_hits"] = hits


def _fill_again(blocks: Rows, computed: dict[str, int], block_size: int) -> None:
    """Say of what is held how full it was, from how far its request had come."""
    for row in np.flatnonzero((blocks["end_step"] == NEVER) & (blocks["index"] != NEVER)):
        num_left = computed.get(blocks["request_id"][row], 0) - blocks["index"][row] * block_size
        blocks["num_filled"][row] = min(block_size, max(0, num_left))


def _forget_names(blocks: Rows, events: Rows) -> None:
    """Take the names from blocks that had none yet."""
    newest: dict[int, str] = {}  # by block, of being taken and getting a name: what came last
    for kind, block_id in zip(events["kind"], events["block_id"], strict=True):
        if kind in ("block_taken", "block_cached"):
            newest[block_id] = kind
    writers = {
        block_id: row
        for row, (block_id, how) in enumerate(zip(blocks["block_id"], blocks["how"], strict=True))
        if how in ("new", "copied")
    }
    for block_id, row in writers.items():
        if newest.get(block_id) == "block_taken":
            blocks["hash"][row] = None
