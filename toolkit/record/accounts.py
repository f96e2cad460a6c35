"""Where one request's seconds went: the ledger's parts, and what slowed its later tokens down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.request import WAIT_CAUSES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Account", "Part", "account_of", "step_ranges"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Seconds of one kind, and the steps in which they passed."""

    name: str
    seconds: float
    steps: Array


@dataclass(frozen=True, slots=True)
class Account:
    """The parts of a request's time so far, those of the first token before the rest."""

    total_s: float
    first_token_s: float  # from its arrival; NaN while there is none
    before: tuple[Part, ...]
    after: tuple[Part, ...]

    def seconds(self, name: str, *, also_after: bool = True) -> float:
        """Return the seconds of a part by name."""
        parts = (*self.before, *self.after) if also_after else self.before
        return sum(part.seconds for part in parts if part.name == name)

    def steps(self, name: str, *, after: bool) -> Array:
        """Return the steps of a part, before or after the first token."""
        for part in self.after if after else self.before:
            if part.name == name:
                return part.steps
        return np.zeros(0, "int64")


def account_of(row: Any, spans: pd.DataFrame, batch: pd.DataFrame, quiet_s: float) -> Account:
    """Add a request's spans up.

    Of ``wait_host`` what passed while a step was under way when it arrived is a part of its own,
    ``wait_step``; of ``decode``, what its steps took longer because prompts of others were in them
    is ``beside``, and what lay between steps is ``wait_host``.

    Args:
        row: Of the table of requests.
        spans: Of this request.
        batch: The steps of its life, as ``Company.batch`` makes them, and one before.
        quiet_s: How long a step takes without prompts, where its own do not tell.
    """
    kinds, causes = spans["kind"].to_numpy(object), spans["cause"].to_numpy(object)
    lengths = (spans["end_s"] - spans["start_s"]).to_numpy("float64")
    gaps = spans["gap_s"].to_numpy("float64")
    first_steps = spans["start_step"].to_numpy("int64")
    last_steps = spans["end_step"].to_numpy("int64")
    first_s = float(row["first_token_s"]) if row["first_token_s"] == row["first_token_s"] else None
    late = spans["start_s"].to_numpy() >= (np.inf if first_s is None else first_s)

    def part(name: str, which: Array) -> Part:
        steps = _steps_of(first_steps[which], last_steps[which])
        return Part(name, float((lengths - gaps)[which].sum()), steps)

    def waits(which: Array) -> list[Part]:
        found = [part(f"wait_{c}", which & (causes == c)) for c in WAIT_CAUSES if c != "host"]
        host = part("wait_host", which & (causes == "host"))
        return [*found, Part(host.name, host.seconds + float(gaps[which].sum()), host.steps)]

    *others, host = waits(~late)
    under_way = _under_way(row, batch)
    before = [
        part("tokenize", kinds == "tokenize"),
        under_way,
        Part(host.name, max(0.0, host.seconds - under_way.seconds), host.steps),
        *others,
        part("prefill", kinds == "prefill"),
        part("preempted", ~late & (kinds == "preempted")),
        part("emit", kinds == "emit"),
    ]
    decode = part("decode", kinds == "decode")
    beside = _beside(batch, decode.steps, quiet_s)
    after = [
        Part("decode", decode.seconds - beside.seconds, decode.steps),
        beside,
        *waits(late),
        part("preempted", late & (kinds == "preempted")),
    ]
    start_s = float(row["arrival_s"])
    total_s = float(spans["end_s"].max()) - start_s if len(spans) else 0.0
    ttft_s = float("nan") if first_s is None else first_s - start_s
    return Account(total_s, ttft_s, _kept(before), _kept(after))


def step_ranges(steps: Array) -> str:
    """Write numbers of steps down, consecutive ones as a range.

    >>> step_ranges(np.array([3, 4, 5, 9]))
    '3-5, 9'
    """
    cuts: Array = np.flatnonzero(np.diff(steps) > 1) + 1
    runs = [run for run in np.split(steps, cuts) if len(run)]
    shown = [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs[:3]]
    return ", ".join(shown) + (f" and {len(runs) - 3} more ranges" if len(runs) > 3 else "")


def _kept(parts: list[Part]) -> tuple[Part, ...]:
    return tuple(part for part in parts if part.seconds > 0)


def _steps_of(first: Array, last: Array) -> Array:
    """Return the numbers of all steps in these ranges; negative ones stand for none."""
    ranges = [
        np.arange(start, end + 1) for start, end in zip(first, last, strict=True) if start >= 0
    ]
    return np.unique(np.concatenate(ranges)) if ranges else np.zeros(0, "int64")


def _under_way(row: Any, batch: pd.DataFrame) -> Part:
    """Return the rest of the step that ran when the request was ready."""
    ready_s = float(row["arrival_s"]) + float(row["tokenize_s"])
    start_s = batch["start_s"].to_numpy("float64")
    end_s = start_s + batch["duration_s"].to_numpy("float64")
    queued_s = float(row["queued_s"]) if row["queued_s"] == row["queued_s"] else end_s.max()
    inside = (start_s < ready_s) & (end_s > ready_s) & (start_s < queued_s)
    seconds = float((end_s[inside] - ready_s).sum())
    return Part("wait_step", seconds, batch["step"].to_numpy("int64")[inside])


def _beside(batch: pd.DataFrame, decode_steps: Array, quiet_s: float) -> Part:
    """Return what decoding took longer in steps that computed prompts of others."""
    steps = batch["step"].to_numpy("int64")
    duration_s = batch["duration_s"].to_numpy("float64")
    decodes = np.isin(steps, decode_steps) & (batch["own_tokens"].to_numpy() > 0)
    shared = decodes & (batch["mates_prompt_tokens"].to_numpy() > 0)
    alone = decodes & ~shared
    if alone.any():
        quiet_s = float(np.median(duration_s[alone]))
    excess_s = np.maximum(0.0, duration_s - quiet_s)
    if not quiet_s > 0:  # no step was free of prompts: share each out by tokens
        mates = batch["mates_prompt_tokens"].to_numpy("float64")
        excess_s = duration_s * mates / np.maximum(1.0, batch["num_tokens"].to_numpy("float64"))
    return Part("beside", float(excess_s[shared].sum()), steps[shared])
