"""Follow every block of the KV cache: who held it, from when to when, how full, and what then.

A holding is a request's hold on a block; holding it twice at once (a beam that takes over a table
with blocks of its own) is one. A row is written when it begins and filled in as it goes on. When
the last holder leaves a block that later prompts may still find, that holding remembers until when
they may: its ``end_why`` becomes "evicted" once the content is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.engine.events import (
    BlockCached,
    BlockCopied,
    BlockEvicted,
    BlockFreed,
    BlockShared,
    BlockTaken,
    StepPlan,
)
from toolkit.record.log import Log
from toolkit.request import Status

__all__ = ["CACHED_STILL", "HOLDING_KINDS", "NEVER", "Holdings"]

HOLDING_KINDS = {
    "block_id": "q",
    "request_id": "n",
    "hash": "n",
    "start_step": "q",
    "end_step": "q",  # NEVER while it lasts
    "start_s": "d",
    "end_s": "d",
    "how": "n",
    "end_why": "n",  # without "evicted"
    "num_filled": "i",
    "num_hits": "i",
    # Beside the table's columns: the block's place in its request's table, until which step it was
    # cached afterwards (NEVER if it was not, CACHED_STILL if it is), and whether that was its end.
    "index": "i",
    "cached_until_step": "q",
    "is_evicted": "b",
}
NEVER = -1
CACHED_STILL = 1 << 62
_HASH_DIGITS = 12  # 48 bits: in a million blocks two alike have odds of 1 : 500
_REASONS = {
    Status.FINISHED: "finished",
    Status.PREEMPTED: "preempted",
    Status.FAILED: "aborted",
    Status.ABORTED: "aborted",
}


class Holdings:
    """Writes the rows of the ``blocks`` table, and the events of blocks.

    Args:
        engine: Whose cache it is.
        log: Where the holdings go.
        events: Where the events go.
        origin_s: What times count from.
    """

    def __init__(self, engine: Any, log: Log, events: Log, origin_s: float) -> None:
        self.since_step: int | None = None  # everything from then on is known
        self._engine = engine
        self._log = log
        self._events = events
        self._origin_s = origin_s
        self._detach: list[Callable[[], None]] = []
        self._clear()

    def listen(self, *, wanted: bool) -> None:
        """Listen to the cache, or no more; what was open when nobody listened stays unknown."""
        if wanted == bool(self._detach):
            return
        while self._detach:
            self._detach.pop()()
        self._clear()
        self.since_step = None
        if not wanted:
            return
        if self._engine.cache.pool.num_free == self._engine.cache.num_blocks:
            self.since_step = self._engine.scheduler.next_step
        listeners: dict[type[Any], Callable[[Any], None]] = {
            BlockTaken: self._on_taken,
            BlockShared: self._on_shared,
            BlockCopied: self._on_copied,
            BlockCached: self._on_cached,
            BlockEvicted: self._on_evicted,
            BlockFreed: self._on_freed,
        }
        self._detach = [self._engine.on(kind, listener) for kind, listener in listeners.items()]

    def _clear(self) -> None:
        num_blocks = self._engine.cache.num_blocks
        self._open: dict[tuple[str, int], int] = {}  # (request, block) -> row
        self._extra: dict[tuple[str, int], int] = {}  # times that it is held beyond once
        self._tables: dict[str, list[int]] = {}  # as the runner knows them
        self._closed: dict[tuple[str, int], int] = {}  # rows that ended since the last step's end
        self._writer = [NEVER] * num_blocks  # row that wrote the block's content
        self._last = [NEVER] * num_blocks  # row that left the block cached
        self._names: list[str | None] = [None] * num_blocks
        self._filled = [0] * num_blocks

    def reload(self) -> None:
        """Read what is open from the rows that are left, after some were dropped from the end."""
        if not self._detach:
            return
        self._clear()
        columns = self._log.read()
        rows = zip(*(columns[name].tolist() for name in HOLDING_KINDS), strict=True)
        for number, row in enumerate(rows, start=self._log.start):
            values = dict(zip(HOLDING_KINDS, row, strict=True))
            block_id, name = values["block_id"], values["request_id"]
            if values["how"] in ("new", "copied"):
                self._writer[block_id] = number
            if values["end_step"] == NEVER:
                self._open[name, block_id] = number
            if values["cached_until_step"] == CACHED_STILL:
                self._last[block_id] = number
            self._names[block_id] = values["hash"]
            self._filled[block_id] = values["num_filled"]
        self._tables = self._engine.cache.tables

    # ---- events

    def _on_taken(self, event: BlockTaken) -> None:
        block_id = event.block_id
        self._names[block_id], self._filled[block_id] = None, 0
        self._writer[block_id] = self._begin(event, block_id, "new")
        self._note(event, "block_taken", event.request_id, block_id)

    def _on_shared(self, event: BlockShared) -> None:
        block_id, key = event.block_id, (event.request_id, event.block_id)
        self._note(event, "block_shared", event.request_id, block_id)
        if key in self._open:
            self._extra[key] = self._extra.get(key, 0) + 1
            return
        was_cached = self._last[block_id]
        if was_cached != NEVER:
            self._log.set(was_cached, "cached_until_step", event.step)
            self._last[block_id] = NEVER
        is_alone = self._engine.cache.pool.ref_count(block_id) == 1
        self._begin(event, block_id, "reused" if is_alone else "shared")
        writer = self._writer[block_id]
        self._log.set(writer, "num_hits", (self._log.get(writer, "num_hits") or 0) + 1)

    def _on_copied(self, event: BlockCopied) -> None:
        row = self._open.get((event.request_id, event.block_id), NEVER)
        self._log.set(row, "how", "copied")
        self._filled[event.block_id] = self._filled[event.source_id]
        self._note(event, "block_copied", event.request_id, event.block_id, event.source_id)

    def _on_cached(self, event: BlockCached) -> None:
        block_id = event.block_id
        name = self._engine.cache.pool.name(block_id)
        self._names[block_id] = None if name is None else name.hex()[:_HASH_DIGITS]
        self._log.set(self._writer[block_id], "hash", self._names[block_id])
        self._note(event, "block_cached", None, block_id)

    def _on_evicted(self, event: BlockEvicted) -> None:
        block_id, row = event.block_id, self._last[event.block_id]
        self._log.set(row, "cached_until_step", event.step)
        self._log.set(row, "is_evicted", 1)
        self._last[block_id] = NEVER
        self._note(event, "block_evicted", None, block_id, event.cause)

    def _on_freed(self, event: BlockFreed) -> None:
        block_id, key = event.block_id, (event.request_id, event.block_id)
        self._note(event, "block_freed", event.request_id, block_id)
        if key in self._extra:
            self._extra[key] -= 1
            if not self._extra[key]:
                del self._extra[key]
            return
        row = self._open.pop(key, None)
        if row is None:  # it began before anybody listened
            return
        self._closed[key] = row
        self._log.set(row, "end_step", event.step)
        self._log.set(row, "end_s", event.time_s - self._origin_s)
        self._log.set(row, "end_why", self._reason(event.request_id))
        if self._engine.cache.pool.is_cached(block_id):
            self._log.set(row, "cached_until_step", CACHED_STILL)
            self._last[block_id] = row

    def on_step(self, plan: StepPlan) -> None:
        """Learn from a step's plan how full its requests' blocks are, and their places."""
        if not self._detach:
            return
        size = self._engine.cache.block_size
        for chunk in plan.chunks:
            name = chunk.request_id
            if chunk.is_first:
                self._tables[name] = list(chunk.new_block_ids)
            elif name not in self._tables:  # it ran before anybody listened
                self._tables[name] = self._engine.cache.table(name)
            elif chunk.new_block_ids:
                self._tables[name] += chunk.new_block_ids
        for copy in plan.copies:
            table = self._tables[copy.request_id]
            if copy.source_id in table:
                table[table.index(copy.source_id)] = copy.target_id
        for chunk in plan.chunks:
            name, table = chunk.request_id, self._tables[chunk.request_id]
            first = 0 if chunk.is_first else chunk.start // size
            if chunk.new_block_ids:
                first = min(first, len(table) - len(chunk.new_block_ids))
            for index in range(first, min(len(table), -(-chunk.end // size))):
                self._fill(name, table[index], index, min(size, chunk.end - index * size))
        for name, _ in self._closed:
            if self._engine.scheduler.get(name) is None:
                self._tables.pop(name, None)
        self._closed.clear()

    # ---- small things

    def _fill(self, request_id: str, block_id: int, index: int, num_filled: int) -> None:
        key = (request_id, block_id)
        row = self._open.get(key, self._closed.get(key, NEVER))
        self._log.set(row, "index", index)
        self._log.set(row, "num_filled", num_filled)
        self._filled[block_id] = num_filled

    def _begin(self, event: BlockTaken | BlockShared, block_id: int, how: str) -> int:
        row = (
            block_id,
            event.request_id,
            self._names[block_id],
            event.step,
            NEVER,
            event.time_s - self._origin_s,
            float("nan"),
            how,
            None,
            self._filled[block_id],
            0,
            NEVER,
            NEVER,
            0,
        )
        number = self._open[event.request_id, block_id] = self._log.append(row)
        return number

    def _reason(self, request_id: str) -> str:
        """Say why a request lets a block go; one that runs on holds another in its place."""
        request = self._engine.scheduler.get(request_id)
        return "aborted" if request is None else _REASONS.get(request.status, "replaced")

    def _note(
        self, event: Any, kind: str, request_id: str | None, block_id: int, detail: Any = None
    ) -> None:
        detail = None if detail is None else str(detail)
        time_s = event.time_s - self._origin_s
        self._events.append((time_s, event.step, kind, request_id, block_id, detail))
