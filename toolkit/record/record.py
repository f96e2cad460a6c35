"""The record of an engine: six tables of what happened, live, frozen or read from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import InvalidConfig, InvalidParameter, RecordError
from toolkit.files import from_home
from toolkit.record.block_states import block_states
from toolkit.record.environment import config_values, environment
from toolkit.record.facts import Facts
from toolkit.record.layout import LEVELS
from toolkit.record.log import Rows
from toolkit.record.past import before_step
from toolkit.record.readings import Readings
from toolkit.record.recorder import Recorder, WatchedEngine
from toolkit.record.saved import Saved, load_record, save_record
from toolkit.record.schema import TABLES
from toolkit.record.selection import between, matching, of_requests
from toolkit.record.tables import Tables

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Record"]


class Record(Tables, Readings):
    """The tables of one engine: steps, chunks, requests, tokens, blocks, events.

    Memory is bounded: the oldest rows of each table go first, of ``requests`` the oldest that
    ended, and ``num_dropped`` says how many went (`layout.MAX_ROWS` has the bounds, which come to
    less than 900 MB). Tables may be read from any thread while the engine runs.

    Args:
        level: How much is kept. "requests": steps, requests and the scheduler's events; "tokens":
            chunks and tokens too; "blocks": holdings and events of blocks too; "explain": what the
            sampler did for each token too.
        token_text: Makes the ``text`` column from token ids; None leaves it empty.
        max_rows: How many rows are kept, by table, where it is not `layout.MAX_ROWS`.
        describe: Says what ``environment`` cannot know by itself: the model, its fingerprint.
    """

    def __init__(
        self,
        *,
        level: str = "tokens",
        token_text: Callable[[int], str | None] | None = None,
        describe: Callable[[], dict[str, Any]] | None = None,
        max_rows: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(token_text or (lambda token_id: None), max_rows)
        self.started_at = datetime.now(timezone.utc)
        self.name = ""  # of a part, see ``during``
        self.config: dict[str, Any] = {}
        self.journal: Any = None  # what the engine needs to replay the run
        self.generation = 0  # how often rows that had been there were taken back
        self._describe = describe
        self._environment: dict[str, Any] | None = None
        self._facts = Facts()
        self._now: Callable[[], float] = lambda: float("inf")
        self._unfinished: Callable[[], Any] = tuple
        self._blocks_since: int | None = None
        self.level = level

    # ---- what it is of

    def attach(self, engine: WatchedEngine) -> None:
        """Subscribe to an engine's events; times count from now."""
        self.started_at = datetime.now(timezone.utc)
        self._recorder = recorder = Recorder(engine, self._logs, self._facts, self._level)
        self._now = lambda: engine.clock.now() - recorder.origin_s
        self._unfinished = lambda: engine.scheduler.unfinished
        self.config = config_values(engine.config)

    @property
    def is_live(self) -> bool:
        """Whether an engine still writes to it."""
        return self._recorder is not None

    @property
    def origin_s(self) -> float | None:
        """Where its times begin, on the engine's clock; None unless it is live."""
        return None if self._recorder is None else self._recorder.origin_s

    @property
    def level(self) -> str:
        """How much is kept; a new level holds from the next event on."""
        return self._level

    @level.setter
    def level(self, level: str) -> None:
        if level not in LEVELS:
            raise InvalidConfig(f"record.level={level!r} is not one of {', '.join(LEVELS)}")
        self._level = level
        if self._recorder is not None:
            self._recorder.level = level

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, platform, seed, and the model with a fingerprint of its weights."""
        if self._environment is None:
            described = self._describe() if self._describe is not None else {}
            self._environment = {**environment(), "seed": self.config.get("seed"), **described}
        return self._environment

    @property
    def token_text(self) -> Callable[[int], str | None]:
        """Makes the text of a token id."""
        return self._token_text

    @property
    def num_blocks(self) -> int | None:
        """Blocks of the pool; None before an engine is known."""
        return self.config.get("num_blocks")

    @property
    def block_size(self) -> int | None:
        """Tokens in a block; None before an engine is known."""
        return self.config.get("block_size")

    def facts(self, request_id: str, position: int) -> dict[str, Any] | None:
        """Return what the sampler did for the token at a position, if that was recorded."""
        return self._facts.get(request_id, position)

    def blocks_at(self, step: int) -> pd.DataFrame:
        """Return where every block of the pool stood after a step: held, cached or empty.

        Raises:
            RecordError: blocks were not recorded from the start, or rows of them were dropped.
            InvalidParameter: the step is no whole number.
        """
        if not isinstance(step, Integral):
            raise InvalidParameter(f"blocks_at({step!r}): give a step's number", param="step")
        since = self._first_blocks_step()
        if since is None or self.num_blocks is None:
            raise RecordError(
                "blocks_at() needs every holding since the pool was empty: set "
                'record.level = "blocks" before the first request'
                + ("; the oldest were dropped" if self._log("blocks").num_dropped else "")
            )
        return block_states(
            self.rows("blocks"),
            self.rows("chunks"),
            step,
            num_blocks=self.num_blocks,
            block_size=self.block_size or 1,
        )

    # ---- parts and copies

    def freeze(self) -> Record:
        """Return a copy of what is there now, which nothing changes any more."""
        return self._part(self.all_rows())

    def between(self, start_s: float, end_s: float) -> Record:
        """Return a frozen part: steps that began in [start_s, end_s), requests alive in it.

        Raises:
            InvalidParameter: a bound is no number of seconds.
        """
        return self._part(between(self.all_rows(), start_s, end_s))

    def where(self, **wanted: Any) -> Record:
        """Return a frozen part: requests whose columns or tags have these values.

        A list, a set or an array stands for any of its values. A tag with the name of a column is
        ``where(**{"tags.status": "open"})``. Steps stay, because they are the engine's.

        Raises:
            RecordError: there is no such column, and no request has such a tag.
            InvalidParameter: a value cannot be compared with those of the column.
        """
        rows = self.all_rows()
        return self._part(of_requests(rows, matching(rows["requests"], wanted)))

    @contextmanager
    def during(self, name: str) -> Iterator[Record]:
        """Yield a record that holds, once the block is left, what happened in it."""
        start_s = self._now()
        part = self._part(before_step(self.all_rows(), 0))
        part.name = name
        try:
            yield part
        finally:
            part._take_over(self.between(start_s, self._now()))

    def truncate(self, step: int) -> None:
        """Take back the steps from ``step`` on and all that happened in or after them.

        A live record reads the unfinished requests anew from its engine, which must stand where it
        stood before that step; a frozen one keeps those that had ended.
        """
        live = list(self._unfinished())
        rows = self.all_rows()
        names = {request.id for request in live}
        kept = before_step(rows, step, names, block_size=self.block_size or 1)
        for table, log in self._logs.items():
            log.load(kept[table], start=log.start)
        positions = kept["tokens"]["position"].tolist()
        self._facts.keep(zip(kept["tokens"]["request_id"].tolist(), positions, strict=True))
        self.generation += 1
        if self._recorder is not None:
            requests = rows["requests"]
            steps = zip(requests["request_id"], requests["added_step"].tolist(), strict=True)
            self._recorder.reload(live, dict(steps))

    # ---- files

    def save(self, path: str | Path) -> Path:
        """Write everything to one file, a zip of JSON and npz; return its path.

        Folders that lack are made, and a file that is there already is replaced.

        Raises:
            InvalidConfig: the path is that of a folder.
        """
        return save_record(Path(path), self._saved())

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read what ``save`` wrote.

        Raises:
            RecordError: it is not such a file, is damaged, was written by a newer version, or
                unpacks to more than a record can be (`saved.MAX_MEMBER_BYTES`).
        """
        record = cls()
        record._restore(load_record(from_home(path)))
        return record

    # ---- inside

    def _part(self, rows: dict[str, Rows]) -> Record:
        """Return a frozen record with these rows and everything else as it is here."""
        part = Record(level=self._level, token_text=self._token_text, describe=self._describe)
        part._environment, part.config = self._environment, self.config
        part.started_at, part.journal, part.name = self.started_at, self.journal, self.name
        part._facts = self._facts.copy()
        part._blocks_since = self._first_blocks_step()
        for table, log in part._logs.items():
            log.load(rows[table])
            log.num_dropped = self._logs[table].num_dropped
        return part

    def _first_blocks_step(self) -> int | None:
        """Return from which step on every holding is known."""
        if self._log("blocks").num_dropped:
            return None
        return self._recorder.holdings.since_step if self._recorder else self._blocks_since

    def _saved(self) -> Saved:
        journal = self.journal
        token_ids = np.unique(self._log("tokens").read()["token_id"]).tolist()
        texts = {str(token_id): self._token_text(token_id) for token_id in token_ids}
        return Saved(
            header={
                "started_at": self.started_at.isoformat(),
                "level": self._level,
                "name": self.name,
                "config": self.config,
                "environment": self.environment,
                "num_dropped": self.num_dropped,
                "blocks_since": self._first_blocks_step(),
                "token_texts": texts,
            },
            tables=self.all_rows(),
            facts=self._facts.items(),
            journal=journal.to_json() if hasattr(journal, "to_json") else journal,
        )

    def _restore(self, saved: Saved) -> None:
        header = saved.header
        self.started_at = datetime.fromisoformat(header["started_at"])
        self._level, self.name = header["level"], header["name"]
        self.config, self._environment = header["config"], header["environment"]
        self._blocks_since = header["blocks_since"]
        texts = {int(token_id): text for token_id, text in header["token_texts"].items()}
        self._token_text = texts.get
        for table, log in self._logs.items():
            log.load(saved.tables[table])
            log.num_dropped = header["num_dropped"][table]
        for request_id, position, text in saved.facts:
            self._facts.put_text(request_id, position, text)
        self.journal = saved.journal

    def _take_over(self, other: Record) -> None:
        self._logs, self._facts = other._logs, other._facts

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.num_rows(table)} {table}" for table in TABLES)
        dropped = ", ".join(f"{count} {name}" for name, count in self.num_dropped.items() if count)
        what = "live" if self.is_live else "frozen"
        name = f"{self.name!r}, " if self.name else ""
        return f"Record({name}{what}, level={self._level!r}; {counts}" + (
            f"; dropped as too old: {dropped})" if dropped else ")"
        )
