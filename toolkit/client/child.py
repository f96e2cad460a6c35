"""A client process: takes orders on standard input, answers on standard output, both pickled.

Only `processes`, which starts it, talks this way. The first order is a dict of settings; then come
("items", [Item]), ("all",), ("ready",), ("start", origin_s) and ("stop",). Answers are ("ready",),
when the order of that name has been reached, ("answers", [Answer], bytes of bodies sent so far) and
at last ("end", Watch).
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import sys
import threading
from typing import Any, BinaryIO

from toolkit.client.exchange import Answer
from toolkit.client.load import Load, allow_many_files
from toolkit.client.target import Target

__all__ = ["main"]

_REPORT_S = 0.2


def main() -> None:
    """Serve one load."""
    allow_many_files()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints spoils no answer
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb") as orders:
        asyncio.run(_serve(orders, answers))


async def _serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Do what the parent orders until the load is over, or the parent is gone."""
    loop = asyncio.get_running_loop()
    settings: dict[str, Any] = pickle.load(orders)
    found: list[Answer] = []
    load = Load(
        Target(**settings["target"]),
        found.append,
        timeout_s=settings["timeout_s"],
        max_in_flight=settings["max_in_flight"],
    )
    started: asyncio.Future[float] = loop.create_future()

    def send(message: tuple[Any, ...]) -> None:
        pickle.dump(message, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()

    def obey(order: tuple[Any, ...]) -> None:
        kind, *values = order
        if kind == "items":
            load.add(*values)
        elif kind == "all":
            load.add_no_more()
        elif kind == "ready":
            send(("ready",))
        elif kind == "start":
            started.set_result(*values)
        else:
            load.stop()
            if not started.done():
                started.set_result(0.0)

    await load.prepare()
    listener = threading.Thread(target=_listen, args=(orders, loop, obey), daemon=True)
    listener.start()
    origin_s = await started
    gc.freeze()  # the bodies need not be looked at again
    running = asyncio.ensure_future(load.run(origin_s))
    while not running.done():
        await asyncio.wait([running], timeout=_REPORT_S)
        taken, found[:] = list(found), []
        # In a thread: the parent may be slow to read, and the load is not to wait for it.
        await asyncio.to_thread(send, ("answers", taken, load.num_sent_bytes))
    send(("end", running.result()))
    await asyncio.to_thread(listener.join)  # the parent closes the pipe


def _listen(orders: BinaryIO, loop: asyncio.AbstractEventLoop, obey: Any) -> None:
    """Pass orders on until the last one."""
    while True:
        try:
            order = pickle.load(orders)
        except (EOFError, OSError):  # the parent is gone
            order = ("stop",)
        loop.call_soon_threadsafe(obey, order)
        if order[0] == "stop":
            return


if __name__ == "__main__":
    main()
