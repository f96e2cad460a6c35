"""The tables of a record: read from the logs and, of live requests, from the recorder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from numbers import Integral
from typing import TYPE_CHECKING

from toolkit.errors import InvalidParameter, RecordError
from toolkit.record.frames import frame, request_rows, schema_frame
from toolkit.record.layout import Logs
from toolkit.record.log import Log, Rows
from toolkit.record.recorder import Recorder
from toolkit.record.schema import TABLES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Tables"]

_APPENDED = ("steps", "chunks", "tokens", "events")
_OTHERS = ("steps", "chunks", "tokens", "blocks", "events")


class Tables:
    """Six tables, whole, by their last rows, or by what is new.

    Args:
        token_text: Makes the ``text`` column from token ids.
        max_rows: How many rows are kept of tables, where it is not `layout.MAX_ROWS`.
    """

    def __init__(
        self,
        token_text: Callable[[int], str | None],
        max_rows: Mapping[str, int] | None = None,
    ) -> None:
        self.tables = TABLES
        self._token_text = token_text
        self._logs = Logs(max_rows)
        self._recorder: Recorder | None = None

    @property
    def num_dropped(self) -> dict[str, int]:
        """Rows that went because there were too many, by table."""
        return {name: log.num_dropped for name, log in self._logs.items()}

    @property
    def steps(self) -> pd.DataFrame:
        """A row per step."""
        return self._frame("steps")

    @property
    def chunks(self) -> pd.DataFrame:
        """A row per request and step that computed something of it."""
        return self._frame("chunks")

    @property
    def requests(self) -> pd.DataFrame:
        """A row per sample, unfinished ones included; the most frequent tags have columns."""
        return self._frame("requests")

    @property
    def tokens(self) -> pd.DataFrame:
        """A row per sampled token, in the order of sampling."""
        return self._frame("tokens")

    @property
    def blocks(self) -> pd.DataFrame:
        """A row per holding of a block, in the order in which they began."""
        return self._frame("blocks")

    @property
    def events(self) -> pd.DataFrame:
        """A row per event; which kinds there are, `schema` says."""
        return self._frame("events")

    def schema(self) -> pd.DataFrame:
        """Return what each column of each table means: table, column, dtype, unit, meaning."""
        return schema_frame()

    def num_rows(self, table: str) -> int:
        """Return how many rows a table has, without making it."""
        live = len(self._recorder.live) if self._recorder and table == "requests" else 0
        return self._log(table).num_rows + live

    def tail(self, table: str, count: int) -> pd.DataFrame:
        """Return a table's last rows; of all but ``requests`` at a cost that only they have.

        Raises:
            RecordError: there is no such table.
            InvalidParameter: the count is no whole number from 0.
        """
        if not isinstance(count, Integral) or count < 0:
            raise InvalidParameter(
                f"tail({table!r}, {count!r}): the number of rows must be a whole one, 0 or more",
                param="count",
            )
        if table == "requests":
            return self.requests.tail(count) if count else self.requests.head(0)
        return self._frame(table, max(0, self._log(table).end - count))

    def since(
        self, table: str, cursor: int, columns: Collection[str] | None = None
    ) -> tuple[pd.DataFrame, int]:
        """Return the rows that came after ``cursor``, and the cursor for the next call.

        0 stands for everything that is kept. The cost is that of the new rows, and less where only
        some ``columns`` are wanted. A rewind of the engine takes rows back, which ``generation``
        tells: then start again from 0.

        Raises:
            RecordError: the table's rows change after they are written.
        """
        if table not in _APPENDED:
            raise RecordError(f"since({table!r}): rows only come at the end of {_APPENDED}")
        end = self._log(table).end
        return self._frame(table, cursor, end, columns), end

    def ttft_s(self, request_ids: Collection[str]) -> dict[str, float]:
        """Return seconds from arrival to first token by request, for those that have one.

        Quick for requests that run or have just ended; others are looked for in the whole table.
        """
        recorder = self._recorder
        running = {} if recorder is None else recorder.ttft_s(request_ids)
        found = dict(running)
        log = self._log("requests")
        for count in (256 + 2 * len(request_ids), log.num_rows):
            missing = set(request_ids) - found.keys()
            if not missing:
                break
            rows = log.read(max(log.start, log.end - count))
            pairs = zip(rows["request_id"].tolist(), rows["ttft_s"].tolist(), strict=True)
            found.update((name, ttft) for name, ttft in pairs if name in missing and ttft == ttft)
        return found

    # ---- inside

    def rows(self, table: str) -> Rows:
        """Return a table's rows as they are stored, by column: for `toolkit.record` alone."""
        if table == "requests":
            # Live ones first: whoever ends meanwhile is then in both, and not in neither.
            live = self._recorder.rows_of_live() if self._recorder is not None else []
            return request_rows(self._log(table).read(), live)
        return self._log(table).read()

    def all_rows(self) -> dict[str, Rows]:
        """Return the rows of all tables; first those of requests, which may end meanwhile."""
        return {table: self.rows(table) for table in ("requests", *_OTHERS)}

    def _frame(
        self,
        table: str,
        start: int = 0,
        end: int | None = None,
        columns: Collection[str] | None = None,
    ) -> pd.DataFrame:
        if table == "requests":
            return frame(table, self.rows(table), self._token_text)
        return frame(table, self._log(table).read(start, end), self._token_text, columns)

    def _log(self, table: str) -> Log:
        if table not in self._logs:
            raise RecordError(f"there is no table {table!r}; there are {', '.join(TABLES)}")
        return self._logs[table]
