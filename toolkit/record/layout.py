"""What the tables keep: which columns, how many rows, at which level of detail."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.errors import InvalidConfig
from toolkit.record.holdings import HOLDING_KINDS
from toolkit.record.log import Log
from toolkit.record.rows import REQUEST_KINDS, STEP_KINDS

__all__ = ["LEVELS", "MAX_ROWS", "SOURCES", "SOURCE_CODES", "TABLE_KINDS", "Logs"]

LEVELS = ("requests", "tokens", "blocks", "explain")
SOURCES = ("sampled", "greedy", "grammar", "draft", "forced")
SOURCE_CODES = {source: code for code, source in enumerate(SOURCES)}

# The oldest rows of each table go first. With the bytes that a row takes: less than 900 MB if all
# are full, and facts (MAX_FACT_BYTES) beside.
MAX_ROWS = {
    "steps": 1_000_000,  # 224 bytes
    "chunks": 4_000_000,  # 21
    "requests": 200_000,  # ended ones; 360, and some 700 in ids, tags and errors
    "tokens": 2_000_000,  # 85
    "blocks": 1_000_000,  # 70
    "events": 1_000_000,  # 36
}
CHUNK_KINDS = {"step": "q", "request_id": "n", "start": "i", "end": "i", "is_recomputed": "b"}
TOKEN_KINDS = {
    "request_id": "n",
    "index": "i",
    "position": "i",
    "step": "q",
    "token_id": "q",
    "sampled_s": "d",
    "sent_s": "d",
    "itl_s": "d",
    "logprob_raw": "d",
    "logprob_processed": "d",
    "rank_raw": "q",
    "entropy_nats": "d",
    "source": "b",  # its place in SOURCES
}
EVENT_KINDS = {
    "time_s": "d",
    "step": "q",
    "kind": "n",
    "request_id": "n",
    "block_id": "q",
    "detail": "n",
}
TABLE_KINDS = {
    "steps": STEP_KINDS,
    "chunks": CHUNK_KINDS,
    "requests": REQUEST_KINDS,
    "tokens": TOKEN_KINDS,
    "blocks": HOLDING_KINDS,
    "events": EVENT_KINDS,
}


class Logs(dict[str, Log]):
    """The rows of all tables, by name; ``requests`` has those that ended.

    Args:
        max_rows: How many are kept, for tables that are to keep more or fewer than MAX_ROWS says.

    Raises:
        InvalidConfig: there is no such table, or a number is not positive.
    """

    def __init__(self, max_rows: Mapping[str, int] | None = None) -> None:
        bounds = {**MAX_ROWS, **(max_rows or {})}
        unknown = ", ".join(bounds.keys() - TABLE_KINDS.keys())
        if unknown or min(bounds.values()) < 1:
            raise InvalidConfig(
                f"max_rows={max_rows!r} must map tables ({', '.join(TABLE_KINDS)}) to positive "
                "numbers of rows"
            )
        super().__init__(
            {name: Log(kinds, max_rows=bounds[name]) for name, kinds in TABLE_KINDS.items()}
        )
