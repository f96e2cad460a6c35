"""The loads under which a scheduling policy is tried, and what is seen of it there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from traceback import format_exception_only
from typing import Any

import numpy as np

from toolkit.errors import InvariantViolation
from toolkit.record import Record
from toolkit.simulate import Arrival, Machine

__all__ = ["LOADS", "Load", "Trial", "first_look", "make_loads", "try_policy"]

# Who speaks when an answer of a policy cannot be followed.
_OVERRULES = "toolkit.engine.policy"
_SHORT, _LONG = (100, 50), (1_200, 100)  # tokens in and out
_SHARE_LONG = 0.05
# Of what the machine serves: below it everybody's turn comes, and nobody can starve.
_OVERLOAD = 1.1
_NUM_OVERLOAD = 600  # as long a load as it takes to tell who starves from who waits until he is old
# Few enough that a line forms while some of those who came are served.
_SEATS = {"max_num_seqs": 16}


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that come to a machine, and the limits of its engine."""

    name: str
    arrivals: tuple[Arrival, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


LOADS = ("overload", "line", "tight")


@dataclass(frozen=True, slots=True)
class Trial:
    """What was seen of a policy under one load; numbers are NaN where it broke.

    ``step_us`` is process time of a whole step, from a second run without checks. A request that
    got no token has waited until the end, ``duration_s``.
    """

    error: str = ""
    overrules: tuple[str, ...] = ()
    longest_wait_s: float = float("nan")
    mean_wait_s: float = float("nan")
    idle_share: float = float("nan")
    recomputed_share: float = float("nan")
    step_us: float = float("nan")
    duration_s: float = float("nan")


def first_look(seed: int) -> Load:
    """Return a few requests of the kind that ``make_loads`` draws, half of which must wait."""
    return Load("first look", _arrivals(np.random.default_rng(seed), 8), {"max_num_seqs": 4})


def make_loads(machine: Machine, seed: int) -> list[Load]:
    """Return three loads: one above capacity, a long line, and one with a tight cache."""
    generator = np.random.default_rng(seed)
    crowd = _arrivals(generator, 200)
    done = machine.run(crowd, progress=False, **_SEATS).requests
    rate = len(crowd) / float(done["finished_s"].max())
    gaps_s = generator.exponential(1 / (_OVERLOAD * rate), _NUM_OVERLOAD)
    longest = max(sum(_LONG), machine.kv_slots // 24)
    num_blocks = -(-2 * longest // 16)
    overload, line, tight = LOADS
    return [
        Load(overload, _arrivals(generator, _NUM_OVERLOAD, np.cumsum(gaps_s)), _SEATS),
        Load(line, _arrivals(generator, 300), {"max_num_seqs": 32}),
        Load(
            tight,
            _arrivals(generator, 80),
            {"num_kv_blocks": num_blocks, "max_model_len": longest},
        ),
    ]


def try_policy(machine: Machine, load: Load, policy: Any, *, until_s: float | None = None) -> Trial:
    """Run a load under a policy, once with every check and once against the clock.

    ``until_s`` ends it early, in seconds of the load.
    """
    options = {**load.options, "policy": policy, "until_s": until_s, "progress": False}
    with _overrules() as told:
        try:
            record = machine.run(load.arrivals, check_every_step=True, **options)
        except InvariantViolation as violation:
            return Trial(str(violation), tuple(told))
        start_s = time.process_time()
        machine.run(load.arrivals, **options)
        busy_s = time.process_time() - start_s
    return _seen(record, busy_s, tuple(told))


def _seen(record: Record, busy_s: float, overrules: tuple[str, ...]) -> Trial:
    steps, requests = record.steps, record.requests
    held_back = steps[(steps["limited_by"] == "policy") & (steps["num_waiting"] > 0)]
    end_s = float(steps["start_s"].iloc[-1] + steps["duration_s"].iloc[-1])
    waits_s = requests["ttft_s"].fillna(end_s - requests["arrival_s"])
    idle = (held_back["token_budget"] - held_back["num_tokens"]).sum()
    return Trial(
        overrules=overrules,
        longest_wait_s=float(waits_s.max()),
        mean_wait_s=float(waits_s.mean()),
        idle_share=float(idle / steps["token_budget"].sum()),
        recomputed_share=float(steps["num_recomputed_tokens"].sum() / steps["num_tokens"].sum()),
        step_us=1e6 * busy_s / len(steps),
        duration_s=end_s,
    )


@contextmanager
def _overrules() -> Iterator[list[str]]:
    """Collect what the scheduler says of a policy, instead of showing it."""
    told: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        _, method, what, detail = record.args if isinstance(record.args, tuple) else [""] * 4
        error = record.exc_info[1] if record.exc_info else None
        cause = "" if error is None else " " + "".join(format_exception_only(error)).strip()
        told.append(f"{method}() {what}{cause}{detail}")
        return False

    logger = logging.getLogger(_OVERRULES)
    logger.addFilter(collect)
    try:
        yield told
    finally:
        logger.removeFilter(collect)


def _arrivals(generator: np.random.Generator, num: int, due_s: Any = None) -> tuple[Arrival, ...]:
    """Draw short requests with a few long ones among them, of two tenants; at once, or as due."""
    is_long = generator.random(num) < _SHARE_LONG
    priorities = generator.integers(0, 3, num)
    return tuple(
        Arrival(
            i,
            0.0 if due_s is None else float(due_s[i]),
            *(_LONG if is_long[i] else _SHORT),
            priority=int(priorities[i]),
            tags={
                "tenant": "ab"[i % 2],
                "predicted_tokens": (_LONG if is_long[i] else _SHORT)[1],
            },
        )
        for i in range(num)
    )
