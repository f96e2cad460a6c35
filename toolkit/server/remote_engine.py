"""A view of an engine in another process: its tables and states by HTTP."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pandas as pd

from toolkit.engine.report import BlockCounts
from toolkit.engine.snapshot import EngineSnapshot, RequestSnapshot
from toolkit.errors import EngineError, UnknownRequest
from toolkit.record import Record
from toolkit.record.why import Why
from toolkit.record.why_parts import why_from_json
from toolkit.server.address import Address
from toolkit.server.failures import UNKNOWN_REQUEST

__all__ = ["RemoteEngine", "RemoteRecord"]

_NAMES_AT_ONCE = 100  # an address line has its limits


class RemoteEngine:
    """What can be seen of an engine that runs in another process, and the little that can be done.

    Args:
        address: Of its server.
        control_key: Opens the server's endpoints for development.
        tables: Names of the record's tables.
    """

    def __init__(self, address: Address, control_key: str, tables: Sequence[str]) -> None:
        self._address = address
        self._control_key = control_key
        self.record = RemoteRecord(self, tables)

    def snapshot(self) -> EngineSnapshot:
        """Return a frozen view of all unfinished requests, taken between two steps."""
        state = self.state()

        def requests(which: str) -> tuple[RequestSnapshot, ...]:
            rows = [{**row, "block_ids": tuple(row["block_ids"])} for row in state[which]]
            return tuple(RequestSnapshot(**row) for row in rows)

        return EngineSnapshot(
            step=state["step"],
            time_s=state["time_s"],
            policy=state["policy"],
            running=requests("running"),
            waiting=requests("waiting"),
            blocks=BlockCounts(**state["blocks"]),
        )

    def state(self) -> dict[str, Any]:
        """Return what ``/engine/state`` says: the snapshot, limits, and the cache's counts."""
        return dict(self.call("GET", "/engine/state"))

    @property
    def is_running(self) -> bool:
        """Whether the engine's thread drives it now."""
        return bool(self.state()["is_running"])

    @property
    def is_paused(self) -> bool:
        """Whether it is held between two steps."""
        return bool(self.call("GET", "/is_paused")["is_paused"])

    def pause(self) -> None:
        """Hold the engine between two steps; requests wait in line."""
        self.call("POST", "/pause")

    def resume(self) -> None:
        """Let it go on."""
        self.call("POST", "/resume")

    def reset_prefix_cache(self) -> int:
        """Forget reusable blocks; return how many were evicted."""
        return int(self.call("POST", "/reset_prefix_cache")["num_evicted"])

    def call(self, method: str, path: str, *, body: Any = None, **params: Any) -> Any:
        """Call an endpoint and return its JSON.

        Raises:
            EngineError: the server does not answer, or refuses.
        """
        return self.ask(method, path, body=body, **params).json()

    def ask(self, method: str, path: str, *, body: Any = None, **params: Any) -> httpx.Response:
        """Call an endpoint and return its answer; raises as ``call()`` does."""
        headers = {"authorization": f"Bearer {self._control_key}"}
        try:
            with self._address.http_client(headers=headers, timeout=None) as http:
                answer = http.request(method, path, params=params, json=body)
        except httpx.TransportError as error:
            raise EngineError(
                f"the server process at {self._address.place} does not answer: {error}"
            ) from error
        if answer.is_error:
            refusal = answer.json()["error"]
            if refusal["code"] == UNKNOWN_REQUEST:
                raise UnknownRequest(refusal["message"])
            raise EngineError(f"{method} {path}: {refusal['message']}")
        return answer

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"engine.{name}: this engine runs in another process (serve(process=True)); from here "
            "there are .record (its tables), .snapshot(), .state(), .pause(), .resume() and "
            ".reset_prefix_cache(). Serve without process=True to hold the engine itself"
        )

    def __repr__(self) -> str:
        return f"RemoteEngine({self._address.place})"


class RemoteRecord:
    """The tables of an engine in another process; each is fetched when it is asked for.

    Args:
        engine: Whose record it is.
        tables: Their names.
    """

    def __init__(self, engine: RemoteEngine, tables: Sequence[str]) -> None:
        self._engine = engine
        self.tables = tuple(tables)

    @property
    def level(self) -> str:
        """How much is kept."""
        return str(self._about()["level"])

    @property
    def started_at(self) -> datetime:
        """What all times count from."""
        return datetime.fromisoformat(self._about()["started_at"])

    @property
    def generation(self) -> int:
        """How often rows that had been there were taken back."""
        return int(self._about()["generation"])

    @property
    def config(self) -> dict[str, Any]:
        """The engine's configuration as plain values."""
        return dict(self._about()["config"])

    @property
    def num_dropped(self) -> dict[str, int]:
        """Rows that went because there were too many, by table."""
        return dict(self._about()["num_dropped"])

    def num_rows(self, table: str) -> int:
        """Return how many rows a table has, without fetching it."""
        return int(self._about()["num_rows"][table])

    def freeze(self) -> Record:
        """Fetch everything: a record with all methods, of what is there now."""
        answer = self._engine.ask("GET", "/engine/record.zip")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "record.zip"
            path.write_bytes(answer.content)
            return Record.load(path)

    def save(self, path: str | Path) -> Path:
        """Fetch everything and write it to one file; return its path."""
        return self.freeze().save(path)

    def facts(self, request_id: str, position: int) -> dict[str, Any] | None:
        """Return what the sampler did for the token at a position, if that was recorded."""
        where = {"request_id": request_id, "position": position}
        facts: dict[str, Any] | None = self._engine.call("GET", "/engine/facts", **where)
        return facts

    def spans(self, request_ids: Collection[str] | None = None) -> pd.DataFrame:
        """Return each request's life as consecutive rows; see `toolkit.record.spans`.

        Raises:
            EngineError: the record keeps no chunks: its level is "requests".
        """
        wanted = None if request_ids is None else list(request_ids)
        return _frame(self._engine.call("POST", "/engine/spans", body={"request_ids": wanted}))

    def why(self, request: str) -> Why:
        """Say why a request was slow, by an answer's id, an X-Request-Id or a request id.

        Raises:
            UnknownRequest: the record has no such request.
        """
        return why_from_json(self._engine.call("GET", f"/engine/why/{quote(request, safe='')}"))

    @property
    def num_blocks(self) -> int:
        """Blocks of the pool."""
        return int(self._about()["num_blocks"])

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        return int(self._about()["block_size"])

    def tail(self, table: str, count: int) -> pd.DataFrame:
        """Return the last rows of a table."""
        return self._table(table, tail=count)[0]

    def since(
        self, table: str, cursor: int, columns: Collection[str] | None = None
    ) -> tuple[pd.DataFrame, int]:
        """Return the rows that came after ``cursor``, and the cursor for the next call."""
        return self._table(table, since=cursor, column=list(columns or ()))

    def ttft_s(self, request_ids: Collection[str]) -> dict[str, float]:
        """Return seconds from arrival to first token by request, for those that have one."""
        found: dict[str, float] = {}
        names = list(request_ids)
        for start in range(0, len(names), _NAMES_AT_ONCE):
            part = names[start : start + _NAMES_AT_ONCE]
            found.update(self._engine.call("GET", "/engine/ttft", request_id=part))
        return found

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("tables", ()):
            return self._table(name)[0]
        raise AttributeError(
            f"record.{name}: of a record in another process there are the tables "
            f"{', '.join(self.__dict__.get('tables', ()))}, .tail(), .since(), .why(), .spans() "
            "and .facts(); .freeze() fetches the whole record, which has all the rest"
        )

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.tables]

    def __repr__(self) -> str:
        return f"RemoteRecord({', '.join(self.tables)} of {self._engine!r})"

    def _table(self, name: str, **params: Any) -> tuple[pd.DataFrame, int]:
        answer = self._engine.call("GET", f"/engine/record/{name}", format="split", **params)
        return _frame(answer), answer["cursor"] or 0

    def _about(self) -> dict[str, Any]:
        return dict(self._engine.call("GET", "/engine/record"))


def _frame(answer: dict[str, Any]) -> pd.DataFrame:
    """Return a table that came as JSON, with the types that it had."""
    frame = pd.DataFrame(answer["data"], columns=answer["columns"], dtype=object)
    return frame.astype(dict(zip(answer["columns"], answer["dtypes"], strict=True)))
