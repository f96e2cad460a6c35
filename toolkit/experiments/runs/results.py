"""Run: what a load did to an engine, a server or a simulated machine, and everything to redo it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from toolkit.experiments.metrics import summarize
from toolkit.experiments.runs.saturation import Saturation
from toolkit.files import from_home
from toolkit.record import Record

if TYPE_CHECKING:
    from toolkit.experiments.figure_style import DataFigure
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["REQUEST_COLUMNS", "Run"]

# The columns of ``requests`` before those of tags, with their types. Times in seconds from the
# start of the load; NaN: it never came to that.
REQUEST_COLUMNS = {
    "arrival_id": "int64",
    "request_id": "object",  # the engine's or the server's; None: it has none
    "status": "object",  # finished, failed, aborted; of a simulation also waiting, running
    "error": "object",
    "scheduled_s": "float64",  # when it was to be sent
    "sent_s": "float64",
    "first_token_s": "float64",
    "last_token_s": "float64",
    "finished_s": "float64",
    "num_prompt_tokens": "int64",
    "num_cached_tokens": "Int64",  # of the prompt; NA: the server does not tell
    "num_output_tokens": "int64",
    "ttft_s": "float64",  # first_token_s - scheduled_s
    "tpot_s": "float64",  # (last_token_s - first_token_s) / (num_output_tokens - 1)
    "e2e_s": "float64",  # last_token_s - scheduled_s
    "itl_p50_s": "float64",
    "itl_p99_s": "float64",
    "itl_max_s": "float64",
    "norm_latency_s": "float64",  # e2e_s / num_output_tokens
}


@dataclass(eq=False, repr=False)
class Run:
    """A load and what came of it: tables, from which every metric is derived later.

    Args:
        requests: A row per request, in the order of ``arrival_id``: ``REQUEST_COLUMNS``, tags.*.
        tokens: A row per token (over HTTP: per piece of a stream, which may hold several):
            arrival_id, index, time_s; empty where the simulator kept none.
        record: The engine's tables of the interval; None for a server that is not ours.
        workload_description: What was asked: repr, fingerprint, num_requests, rate, seed.
        environment: Versions, machine, model.
        settings: How it was asked and what served it; two runs whose settings differ are unlike.
        saturation: Whether the client kept up; None for a simulation, which has no client.
        notes: What a reader of the figures must know.
        workload: What was asked, to ask it again; None where it could not be kept.
        is_interrupted: Whether it was ended early, so that it says little of the whole load.
    """

    requests: pd.DataFrame
    tokens: pd.DataFrame
    record: Record | None = None
    workload_description: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    saturation: Saturation | None = None
    notes: list[str] = field(default_factory=list)
    workload: Workload | None = None
    is_interrupted: bool = False

    @classmethod
    def from_record(
        cls,
        record: Record,
        request_ids: Mapping[int, str],
        workload: Workload,
        **parts: Any,
    ) -> Run:
        """Make a run of what an engine recorded; see `toolkit.experiments.runs.recorded`."""
        from toolkit.experiments.runs.recorded import run_of_record

        return run_of_record(record, request_ids, workload, **parts)

    def summary(
        self,
        by: str | Sequence[str] | None = None,
        *,
        warmup_s: float = 0.0,
        slo: Mapping[str, float] | None = None,
        definition: str = "vllm",
    ) -> pd.DataFrame:
        """Return the field's metrics with intervals of 95 %; see `metrics.summarize`."""
        return summarize(
            self.requests,
            self.tokens,
            by=by,
            slo=slo,
            warmup_s=warmup_s,
            definition=definition,
        )

    def plot(self) -> DataFigure:
        """Draw latencies over time, requests in the system, and distributions of latency."""
        from toolkit.experiments.runs.run_figure import run_figure

        return run_figure(self)

    def save(self, path: str | Path) -> Path:
        """Write everything to one file, a zip of CSV, npz and JSON; return its path.

        Folders that lack are made, and a file that is there already is replaced.

        Raises:
            InvalidConfig: the path is that of a folder.
        """
        from toolkit.experiments.runs.run_file import save_run

        return save_run(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            RecordError: it is no such file, is damaged, or was written by a newer version.
        """
        from toolkit.experiments.runs.run_file import load_run

        return load_run(from_home(path))

    def __repr__(self) -> str:
        counts = self.requests["status"].value_counts()
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        lines = [f"Run of {self.workload_description.get('repr', 'a workload')}"]
        place = " ".join(filter(None, (self.settings.get("on"), self.environment.get("url"))))
        lines.append(f"  on {place or 'something'}: {told or 'nothing was sent'}")
        if self.saturation is not None:
            lines.append(f"  {self.saturation}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
