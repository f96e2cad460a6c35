"""Workloads made of workloads: faster, shorter, at other times, drawn anew.

How a workload came about is kept beside it as a function of the seed, so that it can be drawn anew
with all that was changed since. They are functions of this module, which can be pickled for a
client in another process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads import drawing
from toolkit.experiments.workloads.arrivals import Arrivals
from toolkit.experiments.workloads.randomness import uniforms

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["draws_alike", "head", "scaled", "with_arrivals"]


def draws_alike(one: Workload, other: Workload) -> bool:
    """Return whether two loads ask as much at the same times and share as much of it.

    Two seeds of a trace do: only the tokens differ that nobody looks at.
    """
    mine, its = one.columns, other.columns
    columns = {**mine.numbers(), **mine.tags}
    others = {**its.numbers(), **its.tags}
    return all(np.array_equal(columns[name], others.get(name)) for name in columns) and (
        not one.content.shares
        or np.array_equal(
            one.content.num_shared_tokens(mine, one.seed),
            other.content.num_shared_tokens(its, other.seed),
        )
    )


def scaled(workload: Workload, *, rate: float, time: float, lengths: float) -> Workload:
    """See `Workload.scale`."""
    factors = {"rate": rate, "time": time, "lengths": lengths}
    for name, factor in factors.items():
        if not 0 < factor < math.inf:
            raise InvalidConfig(f"{name}={factor} scales nothing: give a positive number")
    columns, content = workload.columns, workload.content
    if lengths != 1:
        columns, content = drawing.scaled_lengths(columns, content, lengths)
    faster = np.where(columns.after < 0, rate, 1.0)
    said = ", ".join(f"{name}={by:g}" for name, by in factors.items() if by != 1)
    return _changed(
        workload,
        partial(scaled, rate=rate, time=time, lengths=lengths),
        f"scale({said})",
        columns=columns.replace(due_s=columns.due_s / faster * time),
        content=content,
        rate=None if workload._rate is None else workload._rate * rate / time,
    )


def head(workload: Workload, *, num_requests: int) -> Workload:
    """See `Workload.head`."""
    if num_requests < 1:
        raise InvalidConfig(f"num_requests={num_requests}: a workload has at least one")
    num = min(num_requests, len(workload))
    is_alike = workload._is_steady or num == len(workload)
    return _changed(
        workload,
        partial(head, num_requests=num_requests),
        f"head({num_requests})",
        columns=workload.columns.head(num),
        content=workload.content.head(num),
        rate=workload._rate if is_alike else None,
    )


def with_arrivals(workload: Workload, *, arrivals: Arrivals) -> Workload:
    """See `Workload.with_arrivals`."""
    columns = workload.columns
    if int(columns.after.max()) >= 0:
        raise InvalidConfig(
            "these requests follow one another and cannot come at other times; make a new "
            "Workload(arrivals, ...)"
        )
    timing = arrivals.draw(uniforms(workload.seed, "arrivals", len(workload)))
    return _changed(
        workload,
        partial(with_arrivals, arrivals=arrivals),
        f"with_arrivals({arrivals!r})",
        columns=columns.replace(due_s=timing.due_s, after=timing.after),
        rate=getattr(arrivals, "rate", math.nan),
        is_steady=getattr(arrivals, "is_steady", True),
    )


def _changed(
    workload: Workload, change: Callable[[Workload], Workload], said: str, **parts: Any
) -> Workload:
    return workload._with(
        **parts,
        text=f"{workload!r}.{said}",
        # Of what it was made, not of the workload, whose columns would be kept with it.
        redraw=partial(_changed_anew, redraw=workload._redraw, change=change),
    )


def _changed_anew(
    *, seed: int, redraw: Callable[..., Workload], change: Callable[[Workload], Workload]
) -> Workload:
    return change(redraw(seed=seed))
