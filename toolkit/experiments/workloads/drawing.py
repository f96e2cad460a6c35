"""Draw the columns of a load from its parts, and change them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads.arrivals import Arrivals, Timing
from toolkit.experiments.workloads.columns import Columns, objects
from toolkit.experiments.workloads.content import Content
from toolkit.experiments.workloads.lengths import Lengths
from toolkit.experiments.workloads.randomness import Array, uniforms

__all__ = ["check", "columns_of", "draw", "draw_column", "offered_rate", "scaled_lengths"]


def columns_of(timing: Timing, num_prompt_tokens: Any, num_output_tokens: Any) -> Columns:
    """Make columns of times and lengths, with no priorities and no tags."""
    num = len(timing.due_s)
    return Columns(
        due_s=np.array(timing.due_s, np.float64),
        after=np.array(timing.after, np.int32),
        num_prompt_tokens=np.array(np.broadcast_to(num_prompt_tokens, num), np.int32),
        num_output_tokens=np.array(np.broadcast_to(num_output_tokens, num), np.int32),
        priority=np.zeros(num, np.int32),
        tags={},
    )


def draw(
    arrivals: Arrivals, lengths: Lengths, content: Content, num_requests: int, seed: int
) -> Columns:
    """Draw a load: chains of ``content.num_turns`` requests that start when requests arrive."""
    turns = content.num_turns
    num_chains = -(-num_requests // turns)
    starts = arrivals.draw(uniforms(seed, "arrivals", num_chains))
    own, output = lengths.draw(
        uniforms(seed, "prompt lengths", num_requests),
        uniforms(seed, "output lengths", num_requests),
    )
    columns = columns_of(
        _chained(starts, turns, content.think_s, num_requests),
        content.num_prompt_tokens(own, output),
        output,
    )
    check(columns)
    return columns.replace(tags=content.tags(num_requests, seed))


def _chained(starts: Timing, turns: int, think_s: float, num_requests: int) -> Timing:
    """Return when each turn is due: the first as ``starts`` says, the others after the one before.

    A chain that follows another starts after the last turn of that one.
    """
    places: Array = np.arange(len(starts.due_s) * turns, dtype=np.int32)
    due_s: Array = np.full(len(places), think_s)
    after: Array = places - 1
    due_s[::turns] = starts.due_s
    after[::turns] = np.where(starts.after < 0, -1, starts.after * turns + turns - 1)
    return Timing(due_s[:num_requests], after[:num_requests])


def draw_column(rule: Any, name: str, table: Callable[[], Any], num: int, seed: int) -> Array:
    """Return a column as a user describes it, as objects [num].

    Args:
        rule: A value for all, a sequence to draw from evenly, a mapping from value to weight, or a
            function from the table to a column.
        name: Of the column; each has a stream of random numbers of its own.
        table: Gives what a function is called with.
        num: How many values.
        seed: Decides what is drawn.

    Raises:
        InvalidConfig: nothing to draw from, weights that are none, or a column of another length.
    """
    if callable(rule):
        made = np.asarray(rule(table()))
        if made.shape != (num,):
            raise InvalidConfig(f"the function for {name} gave {made.shape}, not {num} values")
        return objects(made.tolist())
    if isinstance(rule, Mapping):
        values, weights = list(rule), np.asarray(list(rule.values()), np.float64)
    elif isinstance(rule, Sequence) and not isinstance(rule, str):
        values, weights = list(rule), np.ones(len(rule))
    else:
        return objects([rule] * num)
    if not values or not (weights >= 0).all() or not 0 < weights.sum() < math.inf:
        raise InvalidConfig(f"{name}={rule!r}: give values to draw from, with weights above 0")
    shares = np.cumsum(weights) / weights.sum()
    places = np.searchsorted(shares, uniforms(seed, f"column {name}", num), side="right")
    return objects(values)[np.minimum(places, len(values) - 1)]


def scaled_lengths(columns: Columns, content: Content, factor: float) -> tuple[Columns, Content]:
    """Return the load with so many times the tokens, in and out."""
    scaled = content.scaled(factor)

    def times(lengths: Array) -> Array:
        return np.maximum(np.rint(lengths * factor), 1).astype(np.int64)

    own = times(content.num_own_tokens(columns.num_prompt_tokens, columns.num_output_tokens))
    output = times(columns.num_output_tokens)
    made = columns.replace(
        num_prompt_tokens=scaled.num_prompt_tokens(own, output).astype(np.int32),
        num_output_tokens=output.astype(np.int32),
    )
    return made, scaled


def offered_rate(columns: Columns) -> float:
    """Return the requests/s of a load whose times are given; see `Workload.rate`."""
    is_first = columns.after < 0
    first_s = columns.due_s[is_first]
    span_s = float(first_s.max() - first_s.min())
    if span_s == 0:
        return math.inf if is_first.all() else math.nan
    return (len(first_s) - 1) / span_s * (len(columns) / len(first_s))


def check(columns: Columns) -> None:
    """Refuse a load that nothing can run; raises InvalidConfig."""
    if not len(columns):
        raise InvalidConfig("a workload has at least one request, and this one has none")
    for name in ("num_prompt_tokens", "num_output_tokens"):
        shortest = int(getattr(columns, name).min())
        if shortest < 1:
            raise InvalidConfig(f"a request with {name}={shortest}: at least 1 is needed")
    if not (np.isfinite(columns.due_s).all() and columns.due_s.min() >= 0):
        raise InvalidConfig("due_s must be finite and at least 0")
    if not (columns.after < np.arange(len(columns))).all() or columns.after.min() < -1:
        raise InvalidConfig("after must name an earlier request, or be -1")
