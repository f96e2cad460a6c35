"""Traces: requests that were recorded or written down, read from files that the user has.

One module a format, with its source and licence. None of the files is a part of this project; a
reader refuses what it does not understand with the file, the line and what was expected there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InvalidConfig
from toolkit.experiments.traces.azure import read_azure
from toolkit.experiments.traces.burstgpt import read_burstgpt
from toolkit.experiments.traces.mooncake import read_mooncake
from toolkit.experiments.traces.own import read_own, write_own
from toolkit.experiments.traces.sharegpt import read_sharegpt
from toolkit.experiments.traces.trace import Trace
from toolkit.experiments.traces.vidur import read_vidur, write_vidur
from toolkit.experiments.workloads.drawing import check
from toolkit.files import from_home, ready_to_write

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["FORMATS", "Trace", "read_trace", "write_trace"]

_READERS: dict[str, Callable[[Path, int | None], Trace]] = {
    "azure": read_azure,
    "mooncake": read_mooncake,
    "burstgpt": read_burstgpt,
    "vidur": read_vidur,
    "toolkit": read_own,
}
FORMATS = (*_READERS, "sharegpt")


def read_trace(
    path: Path, format: str, *, num_requests: int | None = None, tokenizer: Any = None
) -> Trace:
    """Read the first ``num_requests`` of a file, or all; see `Workload.from_trace`."""
    path = from_home(path)
    if num_requests is not None and num_requests < 1:
        raise InvalidConfig(f"num_requests={num_requests}: a workload has at least one")
    if format not in FORMATS:
        raise InvalidConfig(f"no traces of format {format!r}; there are: {', '.join(FORMATS)}")
    if format == "sharegpt":
        return read_sharegpt(path, num_requests, tokenizer)
    trace = _READERS[format](path, num_requests)
    try:
        check(trace.columns)
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}: {error}") from error
    return trace


def write_trace(workload: Workload, path: Path, format: str) -> None:
    """Write a workload; see `Workload.to_csv`."""
    path = ready_to_write(path)
    if format == "toolkit":
        write_own(workload, path)
    elif format == "vidur":
        write_vidur(workload.columns, path)
    else:
        raise InvalidConfig(f"no format {format!r} to write; there are: toolkit, vidur")
