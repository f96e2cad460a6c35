"""Wait on one thread for requests that another thread runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from toolkit.engine.engine import Engine
from toolkit.engine.events import Aborted, Failed, Finished
from toolkit.errors import EngineError
from toolkit.request import Request

__all__ = ["Completion"]


class Completion:
    """Knows which requests of an engine have ended since it was entered.

    A context manager, entered before the requests are added, so that no end is missed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ended: set[str] = set()
        self._changed = threading.Event()
        self._unsubscribe = [
            engine.on(Finished, self._on_end),
            engine.on(Failed, self._on_end),
            engine.on(Aborted, self._on_end),
        ]

    def _on_end(self, event: Finished | Failed | Aborted) -> None:
        self._ended.add(event.request_id)
        self._changed.set()

    def wait_for(self, requests: Sequence[Request], *, interval_s: float) -> Iterator[int]:
        """Yield how many of them ended, at least every ``interval_s``, until all have.

        Raises:
            EngineError: the engine's thread is gone while some are unfinished.
            EngineIsRunning: the engine itself called the caller, so they would never end.
        """
        self._engine.refuse_to_wait()
        open_ids = {request.id for request in requests}
        while open_ids:
            self._changed.wait(timeout=interval_s)
            self._changed.clear()
            ended = open_ids & self._ended
            open_ids -= ended
            yield len(ended)
            if open_ids and not self._engine.is_started:
                raise EngineError("the engine was closed or stopped while requests ran")

    def __enter__(self) -> Completion:
        return self

    def __exit__(self, *_: object) -> None:
        for unsubscribe in self._unsubscribe:
            unsubscribe()
