"""Send a load to an engine of this process: each request when it is due, whatever is under way.

The caller's thread sends and the engine's thread runs, as in a server without HTTP. Times are the
record's own, on the engine's clock; a request arrives when it was scheduled, so what this thread is
late counts as waiting.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from toolkit.client.agenda import Agenda, Due
from toolkit.engine.events import Aborted, Failed, Finished
from toolkit.errors import EngineError, InvalidRequest
from toolkit.experiments.runs.recorded import Refusal
from toolkit.experiments.runs.saturation import Saturation, saturation
from toolkit.request import Request, SamplingParams

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["Asked", "ask"]

_BEGIN_S = 0.01  # from the call until the load begins
# How often to look whether the engine still lives.
_PATIENCE_S = 1.0


@dataclass(slots=True)
class Asked:
    """Which requests a load became; times in seconds from its start."""

    request_ids: dict[int, str] = field(default_factory=dict)
    sent_s: dict[int, float] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    saturation: Saturation | None = None
    origin_s: float = 0.0  # of the load, on the engine's clock
    is_interrupted: bool = False


def ask(
    engine: Any,
    workload: Workload,
    *,
    vocab_size: int,
    params: SamplingParams,
    max_in_flight: int | None = None,
    progressed: Callable[[int], None] = lambda num_ended: None,
) -> Asked:
    """Send every request when it is due; return when all have ended.

    An interrupt aborts what is under way and returns what there is.

    Args:
        engine: Runs on wall time.
        workload: What to ask.
        vocab_size: Token ids of prompts are below it.
        params: Of every request; ``max_tokens`` is the workload's.
        max_in_flight: How many may be under way at once; None for no limit.
        progressed: Is called with the number of requests that ended since the last call, from the
            thread that asks and now and then without any.

    Raises:
        EngineError: the engine was closed or stopped meanwhile, or is paused.
    """
    feeder = _Feeder(
        engine,
        workload,
        vocab_size=vocab_size,
        params=params,
        max_in_flight=max_in_flight,
        progressed=progressed,
    )
    with engine.driving():
        return feeder.run()


class _Feeder:
    """One load on one engine; see ``ask``."""

    def __init__(
        self,
        engine: Any,
        workload: Workload,
        *,
        vocab_size: int,
        params: SamplingParams,
        max_in_flight: int | None,
        progressed: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._workload = workload
        self._vocab_size = vocab_size
        self._params = params
        self._progressed = progressed
        self._agenda = Agenda(max_in_flight=max_in_flight)
        self._asked = Asked()
        self._under_way: dict[str, tuple[int, Request]] = {}  # with arrival ids, by request id
        self._ended: deque[str] = deque()  # as the engine's thread tells
        self._changed = threading.Event()
        self._lags_s: list[float] = []
        self._held_back_s: list[float] = []
        table = workload.table
        self._lengths = table["num_output_tokens"].tolist()
        self._priorities = table["priority"].tolist()
        self._tags = _tags(table)
        for row in table[["arrival_id", "due_s", "after"]].itertuples(index=False):
            self._agenda.add(int(row.arrival_id), due_s=float(row.due_s), after=int(row.after))

    def run(self) -> Asked:
        """Send until nothing is left."""
        clock = self._engine.clock
        kinds = (Finished, Failed, Aborted)
        unsubscribe = [self._engine.on(kind, self._on_end) for kind in kinds]
        cpu_s, start_s = time.thread_time(), time.perf_counter()
        self._asked.origin_s = clock.now() + _BEGIN_S
        try:
            while not self._agenda.is_done:
                self._take_ends()
                while due := self._agenda.take(self._now_s()):
                    self._send(due)
                self._wait()
        except KeyboardInterrupt:
            self._asked.is_interrupted = True
            for request_id in list(self._under_way):
                self._engine.abort(request_id, by="interrupt")
        finally:
            for stop in unsubscribe:
                stop()
        elapsed_s = time.perf_counter() - start_s
        self._asked.saturation = saturation(
            self._lags_s,
            self._held_back_s,
            rate=self._workload.rate,
            cpu_share=(time.thread_time() - cpu_s) / elapsed_s,
            num_unsent=self._agenda.num_waiting,
        )
        return self._asked

    def _now_s(self) -> float:
        return float(self._engine.clock.now()) - self._asked.origin_s

    def _send(self, due: Due) -> None:
        arrival_id = due.arrival_id
        prompt = self._workload.prompt_token_ids(arrival_id, self._vocab_size)
        sent_s = self._now_s()
        self._lags_s.append(sent_s - due.free_s)
        self._held_back_s.append(due.free_s - due.scheduled_s)
        try:
            request = self._engine.add(
                prompt,
                replace(self._params, max_tokens=self._lengths[arrival_id]),
                priority=self._priorities[arrival_id],
                arrival_s=self._asked.origin_s + due.scheduled_s,
                tags=self._tags[arrival_id] if self._tags else None,
            )
        except InvalidRequest as error:
            self._asked.refused.append(Refusal(arrival_id, due.scheduled_s, sent_s, str(error)))
            self._agenda.ended(arrival_id, sent_s)
            self._progressed(1)
            return
        self._asked.request_ids[arrival_id] = request.id
        self._asked.sent_s[arrival_id] = sent_s
        self._under_way[request.id] = arrival_id, request

    def _on_end(self, event: Finished | Failed | Aborted) -> None:
        """Note an end, on the engine's thread; requests of others end too."""
        self._ended.append(event.request_id)
        self._changed.set()

    def _take_ends(self) -> None:
        num_ended = 0
        while self._ended:
            found = self._under_way.pop(self._ended.popleft(), None)
            if found is None:  # somebody else's request
                continue
            arrival_id, request = found
            # When its last token was sent, a moment after the end of the step.
            assert request.finished_s is not None
            self._agenda.ended(arrival_id, request.finished_s - self._asked.origin_s)
            num_ended += 1
        self._progressed(num_ended)

    def _wait(self) -> None:
        """Wait until the next one is due or another has ended."""
        if self._ended or self._agenda.is_done:
            return
        next_s = self._agenda.next_s
        patience_s = _PATIENCE_S if next_s is None else min(next_s - self._now_s(), _PATIENCE_S)
        if patience_s > 0:
            self._changed.wait(timeout=patience_s)
        self._changed.clear()
        if not self._engine.is_started:
            raise EngineError("the engine was closed or stopped while a load ran on it")


def _tags(table: Any) -> list[dict[str, Any]]:
    """Return each request's tags; an empty list where there are none."""
    names = [name for name in table.columns if name.startswith("tags.")]
    columns = [table[name].tolist() for name in names]
    keys = [name.removeprefix("tags.") for name in names]
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
