"""See whether anything else ran while something was measured."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

__all__ = ["OtherLoad"]

_STAT = Path("/proc/stat")
# Fields of /proc/stat's first line that are work: user, nice, system, irq, softirq, steal.
_BUSY = (0, 1, 2, 5, 6, 7)


class OtherLoad:
    """``with OtherLoad() as load: ...``; then ``load.cores`` is what others used of the machine.

    A mean over the block, in cores; 0 where the system does not tell.
    """

    cores = 0.0

    def __enter__(self) -> OtherLoad:
        self._start = (time.perf_counter(), _busy_s(), _own_s())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        started, busy_s, own_s = self._start
        others_s = (_busy_s() - busy_s) - (_own_s() - own_s)
        # The system counts in hundredths of a second, so a short block may come out below 0.
        self.cores = max(0.0, others_s / (time.perf_counter() - started))


def _busy_s() -> float:
    """Return the seconds that all cores have worked since the machine started."""
    if not _STAT.exists():
        return _own_s()
    fields = _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    return sum(int(fields[index]) for index in _BUSY) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    return time.process_time()
