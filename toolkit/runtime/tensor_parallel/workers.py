"""The other processes of a model, seen from the first one: start them, lead them, end them.

Whatever becomes of one of them, the model is lost: this process then ends the others, and says why
to whoever asks for anything.
"""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

import torch

from toolkit.errors import EngineClosed, EngineError, WorkerFailed
from toolkit.interrupts import interrupts_held
from toolkit.runtime.tensor_parallel.channel import Channel
from toolkit.runtime.tensor_parallel.collectives import Collectives, Parted
from toolkit.runtime.tensor_parallel.command import python_command
from toolkit.runtime.tensor_parallel.orders import Begin, DropCaches

__all__ = ["Workers"]

# A process that lets the others wait for so long in the middle of a step hangs: all have the same
# amount of work between two sums, a fraction of a layer.
_PATIENCE_S = 7.0
# From the end of a process's connection to its own end, and until that is noticed.
_GRACE_S = 2.0
_LAST_WORDS = 2000  # characters of what a process wrote before it ended


@dataclass(slots=True, eq=False)
class _Worker:
    """One of the processes."""

    rank: int
    process: subprocess.Popen[bytes]
    channel: Channel
    log: IO[bytes]  # what it writes
    told: deque[Any] = field(default_factory=deque)  # what it has said

    def last_words(self) -> str:
        """Return the end of what it wrote."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()[-_LAST_WORDS:]

    def end(self, grace_s: float) -> None:
        """Wait for its end, and make one if it does not come."""
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Workers:
    """All processes of a model but this one, which is the first.

    Args:
        size: How many there are, this one included.
        device: This one's.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        self._process_id = os.getpid()
        self.collectives = Collectives(0, size, device=device, patience_s=_PATIENCE_S)
        self._workers: list[_Worker] = []
        self._lost: WorkerFailed | None = None  # why, once it is so
        self._is_closed = False
        self._dropped: deque[int] = deque()  # keys of caches that nobody has any more
        self._num_caches = 0
        self.using = threading.RLock()  # held for an order and what is computed together
        self._changed = threading.Condition()
        self._folder = tempfile.mkdtemp(prefix="toolkit-")
        self._clean = weakref.finalize(self, _remove, self._folder, self._process_id)
        self._thread: threading.Thread | None = None

    # ---- start

    def start(self, begins: Sequence[Begin]) -> None:
        """Start the processes, which then load what they are told to."""
        # The thread lives as long as they do: on Linux a child ends with the thread that made it.
        self._thread = threading.Thread(
            target=self._watch, args=(begins,), name="toolkit-workers", daemon=True
        )
        self._thread.start()

    def hear(self, patience_s: float) -> list[Any]:
        """Return the next thing that each process says, once all have said something.

        Raises:
            WorkerFailed: one has ended, and its last words are in the message; or one has said
                nothing for so long.
        """
        deadline = time.monotonic() + patience_s
        with self._changed:
            while True:
                self.require_all()
                if len(self._workers) == self.size - 1 and all(w.told for w in self._workers):
                    return [worker.told.popleft() for worker in self._workers]
                if time.monotonic() > deadline:
                    silent = [w.process.pid for w in self._workers if not w.told]
                    self._lose(f"process {silent[0]} was not ready after {patience_s:.0f} s")
                self._changed.wait(0.5)  # not for ever: an interrupt is heard between two waits

    @property
    def meeting_place(self) -> str:
        """The file in which the processes find one another."""
        return os.path.join(self._folder, "meeting")

    def forget_meeting(self) -> None:
        """Remove the file, which gloo reads once: a process that is killed leaves nothing then."""
        if self.collectives.device.type == "cpu":
            self._clean()

    # ---- lead

    @contextmanager
    def together(self, order: object) -> Iterator[None]:
        """Have the others do what is done in the block.

        An interrupt comes after it: a sum that one process leaves can never be completed.

        Raises:
            WorkerFailed: a process has ended or hangs, now or earlier.
            EngineClosed: they were ended by ``close``.
            EngineError: they belong to the process that this one was forked from.
        """
        self._require_own()  # before the lock, which a thread over there may have held
        with interrupts_held(), self.using:
            self.require_all()
            try:
                self._tell(order)
                yield
            except BaseException as error:
                raise self._give_up(error) from error

    def require_all(self) -> None:
        """Raise WorkerFailed or EngineClosed unless all processes are there, as far as is known."""
        if self.failure is not None:
            raise self.failure
        if self._is_closed:
            raise EngineClosed("this LLM was closed, and its processes ended; build a new one")

    def _require_own(self) -> None:
        if os.getpid() != self._process_id:
            raise EngineError(
                f"this LLM's processes belong to process {self._process_id}, from which this one "
                "was forked: make a new LLM here"
            )

    @property
    def failure(self) -> WorkerFailed | None:
        """Why the model is lost, if it is; an error of its own for each who asks."""
        return None if self._lost is None else self._lost.anew()

    def new_cache(self) -> int:
        """Return a number for a KV cache."""
        self._num_caches += 1
        return self._num_caches

    def drop_cache(self, key: int) -> None:
        """Give a KV cache back, before the next order; from any thread, at any time."""
        self._dropped.append(key)

    def _tell(self, order: object) -> None:
        keys = []
        while self._dropped:
            keys.append(self._dropped.popleft())
        for each in (DropCaches(tuple(keys)), order) if keys else (order,):
            for worker in self._workers:
                worker.channel.send(each)

    def _give_up(self, error: BaseException) -> EngineError:
        """Say what came of a step that broke off, and end the processes, which are out of step."""
        is_others = isinstance(error, (Parted, OSError))
        with self._changed:
            if is_others:  # whoever ended says more than the connection that went with it
                self._changed.wait_for(lambda: self._lost or self._is_closed, _GRACE_S)
        if is_others:
            what = f"a process of this model did not answer for {_PATIENCE_S:.0f} s ({error})"
        else:
            what = f"a step broke off in the first process: {type(error).__name__}: {error}"
        self._lose(what)
        if self._lost is None:
            return EngineClosed("this LLM was closed in the middle of a step")
        return self._lost.anew()

    # ---- watch, on a thread of its own

    def _watch(self, begins: Sequence[Begin]) -> None:
        try:
            for begin in begins:
                self._spawn(begin)
        except BaseException as error:
            self._lose(f"a process cannot be started: {type(error).__name__}: {error}")
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.channel, selectors.EVENT_READ, worker)
            while selector.get_map():
                for key, _ in selector.select():
                    worker = key.data
                    try:
                        said = worker.channel.receive()
                    except (EOFError, OSError):
                        selector.unregister(worker.channel)
                        self._ended(worker)
                        continue
                    with self._changed:
                        worker.told.append(said)
                        self._changed.notify_all()

    def _spawn(self, begin: Begin) -> None:
        own_end, its_end = socket.socketpair()
        own_end.settimeout(_PATIENCE_S)
        with its_end, ExitStack() as undo:
            undo.callback(own_end.close)
            log = undo.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                python_command([str(its_end.fileno()), str(os.getpid())]),
                stdin=subprocess.PIPE,  # whose end is the end of this process
                stdout=log,
                stderr=log,
                pass_fds=(its_end.fileno(),),
                start_new_session=True,  # an interrupt is for us
            )
            undo.pop_all()  # all of it is the worker's now
        worker = _Worker(begin.rank, process, Channel(own_end), log)
        with self._changed:
            self._workers.append(worker)
            if self._is_closed:
                process.kill()
        with suppress(OSError):  # it ended at once: the watch will say so
            worker.channel.send(begin)

    def _ended(self, worker: _Worker) -> None:
        """Take note of an end; one that nobody asked for is the end of all."""
        worker.end(_GRACE_S)
        code = worker.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        place = f"{worker.rank + 1} of the {self.size} of this model"
        self._lose(f"process {worker.process.pid}, {place}, {how}", worker.last_words())
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        worker.channel.close()
        worker.log.close()

    def _lose(self, what: str, last_words: str = "") -> None:
        """Note why the model is lost, unless that is known or wanted; end what is left of it."""
        with self._changed:
            if not self._is_closed and self._lost is None:
                advice = "the model is lost: close this LLM and make a new one"
                self._lost = WorkerFailed(f"{what}; {advice}", last_words)
                self.collectives.abort()
            for worker in self._workers:
                worker.process.kill()
            self._changed.notify_all()

    # ---- end

    def close(self) -> None:
        """End the processes; idempotent, from any thread; nothing happens in a fork of this one."""
        if os.getpid() != self._process_id:
            return
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for worker in self._workers:
                worker.process.kill()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self.collectives.leave()
        self._clean()


def _remove(folder: str, process_id: int) -> None:
    """Remove a folder, unless it is that of the process that this one was forked from."""
    if os.getpid() == process_id:
        shutil.rmtree(folder, ignore_errors=True)
