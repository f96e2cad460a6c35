"""Every block of a pool at one moment, as arrays: what BlockMap draws and shows as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from toolkit.widgets.palette import DARK, LIGHT, NUM_OWNERS, Theme, owner_colour, owner_index, rgb

__all__ = ["COLUMNS", "STATES", "BlockCells", "cells_of_frame", "cells_of_snapshot"]

HASH_DIGITS = 12  # as in the tables of a record
STATES = ("empty", "cached", "held")
# Those of record.blocks_at().
COLUMNS = (
    "block_id",
    "state",
    "request_ids",
    "ref_count",
    "hash",
    "num_filled",
    "held_steps",
    "num_hits",
    "why",
)


@dataclass(frozen=True, slots=True)
class BlockCells:
    """The blocks of a pool after one step; arrays have an entry per block.

    ``holders[holder_ends[i - 1]:holder_ends[i]]`` are the indices in ``owners`` of those who hold
    block i. ``held_steps`` and ``num_hits`` are -1 where nobody recorded them.
    """

    step: int
    block_size: int
    states: np.ndarray  # uint8: index in STATES
    num_filled: np.ndarray  # uint16: tokens
    held_steps: np.ndarray  # int32
    num_hits: np.ndarray  # int32
    hashes: tuple[str, ...]  # hexadecimal, "" for none
    owners: tuple[str, ...]  # request ids
    holders: np.ndarray  # int32
    holder_ends: np.ndarray  # int32
    why: tuple[str, ...] = ()

    @property
    def num_blocks(self) -> int:
        """Blocks in all."""
        return len(self.states)

    @property
    def ref_counts(self) -> np.ndarray:
        """How many requests hold each block."""
        return np.diff(self.holder_ends, prepend=0)

    @property
    def first_holders(self) -> np.ndarray:
        """The index in ``owners`` of each block's first holder, -1 for none."""
        counts = self.ref_counts
        first: np.ndarray = np.full(self.num_blocks, -1, np.int32)
        first[counts > 0] = self.holders[(self.holder_ends - counts)[counts > 0]]
        return first

    def frame(self) -> pd.DataFrame:
        """Return a row per block, in the columns of ``record.blocks_at``."""
        starts = self.holder_ends - self.ref_counts
        holders = [
            tuple(self.owners[i] for i in self.holders[a:b])
            for a, b in zip(starts, self.holder_ends, strict=True)
        ]
        unknown = self.held_steps < 0
        values: tuple[Any, ...] = (
            np.arange(self.num_blocks),
            np.array(STATES, object)[self.states],
            holders,
            self.ref_counts,
            pd.Series([name or None for name in self.hashes], dtype=object),
            self.num_filled.astype(int),
            pd.Series(self.held_steps, dtype="Int64").mask(unknown),
            pd.Series(self.num_hits, dtype="Int64").mask(self.num_hits < 0),
            pd.Series([text or None for text in self.why or [""] * self.num_blocks], dtype=object),
        )
        return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the page draws, small: about 30 bytes a block."""
        # Eight digits are enough to tell blocks apart by eye.
        prefixes = [int(name[:8], 16) if name else 0 for name in self.hashes]
        return {
            "state": self.states,
            "filled": self.num_filled,
            "age": self.held_steps,
            "hits": self.num_hits,
            "hash": np.array(prefixes, np.uint32),
            "holders": self.holders,
            "ends": self.holder_ends,
        }

    def counts(self) -> dict[str, int]:
        """Return how many blocks are in which state, and how many of the held ones are shared."""
        held, cached, empty = (int((self.states == i).sum()) for i in (2, 1, 0))
        shared = int((self.ref_counts > 1).sum())
        return {"held": held, "shared": shared, "cached": cached, "empty": empty}

    def colours(self, theme: Theme = "light") -> np.ndarray:
        """Return the colour of each block, [num_blocks, 3] uint8."""
        names = LIGHT if theme == "light" else DARK
        owners = [rgb(owner_colour(index)) for index in range(NUM_OWNERS)]
        table = np.array([rgb(names["free"]), rgb(names["cached"]), *owners], np.uint8)
        of_owner = np.array([owner_index(name) for name in self.owners] or [0])
        first = self.first_holders
        index = np.where(first >= 0, 2 + of_owner[np.maximum(first, 0)], self.states.clip(0, 1))
        return table[index]


def cells_of_snapshot(snapshot: Any) -> BlockCells:
    """Take the copy that ``engine.block_snapshot()`` made."""
    num_blocks, size = snapshot.num_blocks, snapshot.block_size
    tables = {name: ids for name, ids in snapshot.tables.items() if ids}
    computed = np.array(
        [snapshot.num_computed_tokens.get(name, 0) for name in tables] or [0], np.int64
    )
    lengths = np.array([len(ids) for ids in tables.values()], np.int64)
    blocks = np.array([i for ids in tables.values() for i in ids], np.int64)
    owner: np.ndarray = np.repeat(np.arange(len(tables)), lengths)
    place = np.arange(len(blocks)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    filled = np.clip(computed[owner] - place * size, 0, size) if len(blocks) else place
    states = np.zeros(num_blocks, np.uint8)
    states[list(snapshot.last_used_s)] = 1
    states[blocks] = 2
    num_filled = np.where(states == 1, size, 0).astype(np.uint16)
    np.maximum.at(num_filled, blocks, filled.astype(np.uint16))
    order = np.argsort(blocks, kind="stable")
    unknown = np.full(num_blocks, -1, np.int32)
    return BlockCells(
        step=snapshot.step,
        block_size=size,
        states=states,
        num_filled=num_filled,
        held_steps=unknown,
        num_hits=unknown,
        hashes=tuple(name.hex()[:HASH_DIGITS] if name else "" for name in snapshot.names),
        owners=tuple(tables),
        holders=owner[order].astype(np.int32),
        holder_ends=np.bincount(blocks, minlength=num_blocks).cumsum().astype(np.int32),
    )


def cells_of_frame(frame: pd.DataFrame, *, step: int, block_size: int) -> BlockCells:
    """Take what ``record.blocks_at(step)`` returned."""
    owners: dict[str, int] = {}
    holders = [owners.setdefault(name, len(owners)) for ids in frame["request_ids"] for name in ids]
    return BlockCells(
        step=step,
        block_size=block_size,
        states=frame["state"].map(STATES.index).to_numpy(np.uint8),
        num_filled=frame["num_filled"].fillna(0).to_numpy(np.uint16),
        held_steps=frame["held_steps"].fillna(-1).to_numpy(np.int32),
        num_hits=frame["num_hits"].fillna(-1).to_numpy(np.int32),
        hashes=tuple(_texts(frame["hash"])),
        owners=tuple(owners),
        holders=np.array(holders, np.int32),
        holder_ends=frame["request_ids"].map(len).to_numpy().cumsum().astype(np.int32),
        why=tuple(_texts(frame["why"])),
    )


def _texts(column: Iterable[Any]) -> list[str]:
    return [value if isinstance(value, str) else "" for value in column]
