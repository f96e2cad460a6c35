"""Say where every block of the pool stood after a step, from the rows of its holdings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.record.holdings import NEVER
from toolkit.record.log import Rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["block_states", "computed_until"]

_COLUMNS = {
    "block_id": "int64",
    "state": "object",
    "request_ids": "object",
    "ref_count": "int64",
    "hash": "object",
    "num_filled": "int64",
    "held_steps": "int64",
    "num_hits": "int64",
    "why": "object",
}


def block_states(
    holdings: Rows, chunks: Rows, step: int, *, num_blocks: int, block_size: int
) -> pd.DataFrame:
    """Return a row per block of the pool, as it was after a step and before the next one.

    Args:
        holdings: Rows of the ``blocks`` table, in the order in which they began.
        chunks: Rows of the ``chunks`` table, in order.
        step: The step's number.
        num_blocks: Of the pool.
        block_size: Tokens in a block.
    """
    import pandas as pd

    computed = computed_until(chunks, step)
    rows = [_empty_row(block_id) for block_id in range(num_blocks)]
    begun = np.flatnonzero(holdings["start_step"] <= step)
    columns = [holdings[name][begun].tolist() for name in holdings]
    for values in zip(*columns, strict=True):
        holding = dict(zip(holdings, values, strict=True))
        row = rows[holding["block_id"]]
        if holding["how"] in ("shared", "reused"):
            row["num_hits"] += 1
        else:  # the block has new content
            row["num_hits"], row["hash"] = 0, None
        ended_by_then = holding["end_step"] != NEVER and holding["end_step"] <= step
        row["hash"] = holding["hash"] or row["hash"]
        if not ended_by_then:
            _hold(row, holding, step, computed, block_size)
        elif row["state"] != "held":
            _leave(row, holding, step)
    for row in rows:
        if row["state"] == "empty":
            row["num_hits"] = 0
        if row["num_filled"] < block_size:
            row["hash"] = None  # only full blocks have a name
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.astype(_COLUMNS)


def _empty_row(block_id: int) -> dict[str, Any]:
    return {
        "block_id": block_id,
        "state": "empty",
        "request_ids": (),
        "ref_count": 0,
        "hash": None,
        "num_filled": 0,
        "held_steps": 0,
        "num_hits": 0,
        "why": "never used",
    }


def _hold(
    row: dict[str, Any],
    holding: dict[str, Any],
    step: int,
    computed: dict[str, int],
    block_size: int,
) -> None:
    first = row["state"] != "held"
    name, index = holding["request_id"], holding["index"]
    if index == NEVER:
        num_filled = holding["num_filled"]
    else:
        num_filled = min(block_size, max(0, computed.get(name, 0) - index * block_size))
    row["num_filled"] = num_filled if first else max(row["num_filled"], num_filled)
    row["held_steps"] = max(row["held_steps"] * (not first), step - holding["start_step"])
    row["state"], row["why"] = "held", holding["how"]
    row["request_ids"] = (*row["request_ids"], name)
    row["ref_count"] += 1


def _leave(row: dict[str, Any], holding: dict[str, Any], step: int) -> None:
    """Note a holding that had ended; of several, the last one says what became of the block."""
    is_cached = holding["cached_until_step"] > step
    if is_cached:
        row["state"], row["why"] = "cached", holding["end_why"]
        row["num_filled"] = holding["num_filled"]
    elif row["state"] == "empty" and holding["end_s"] >= row.get("left_s", 0.0):
        row["left_s"] = holding["end_s"]
        row["why"] = "evicted" if holding["is_evicted"] else holding["end_why"]


def computed_until(chunks: Rows, step: int) -> dict[str, int]:
    """Return by request the end of its last chunk up to a step."""
    so_far = chunks["step"] <= step
    return dict(
        zip(chunks["request_id"][so_far].tolist(), chunks["end"][so_far].tolist(), strict=True)
    )
