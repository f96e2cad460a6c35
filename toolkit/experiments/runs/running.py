"""Run a workload on anything that answers: an engine, a server, a simulated machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from toolkit.client.agenda import check_max_in_flight
from toolkit.clock import VirtualClock
from toolkit.errors import InvalidConfig
from toolkit.experiments.runs.in_process import ask
from toolkit.experiments.runs.notes import common_notes
from toolkit.experiments.runs.over_http.run import run_over_http
from toolkit.experiments.runs.recorded import NO_TOKENS, Refusal, run_of_record, run_of_requests
from toolkit.experiments.runs.results import Run
from toolkit.experiments.runs.saturation import MAX_LAG_S, Saturation
from toolkit.experiments.runs.warmup import warmup_of
from toolkit.garbage import old_objects_set_aside
from toolkit.record import Record
from toolkit.request import SamplingParams
from toolkit.simulate import Machine, drive, progress_bar
from toolkit.simulate.fleet import own_engine

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["run"]

_REMEDY = (
    "it shares this process with the engine, so lower the rate, or give the engine a process of "
    "its own: run(on=serve(llm, process=True))"
)


def run(w: Workload, on: Any, *, policy: Any = None, **options: Any) -> Run:
    """Ask for a workload and return what came of it.

    Open loop: a request is sent when it is due, however many are under way, and its times count
    from then. Requests that follow others (closed loops, turns of a chat) are due after those.
    What fails is a row with its error; an interrupt of what is real returns what there is, and the
    run says so (``is_interrupted``).

    >>> experiments.run(w, on=llm).summary()                          # doctest: +SKIP

    Args:
        w: The workload.
        on: An ``LLM`` or ``Engine``, which this process runs; the URL of an OpenAI-compatible
            server, or a handle of one; a ``simulate.Machine``, or a ``Fleet`` of them.
        policy: A scheduling policy for this run; the target's own by default. Not of servers.
        options: Of the target: see `run_on_engine`, `run_over_http`, ``Machine.engine``.

    Raises:
        InvalidConfig: ``on`` is nothing that runs a workload, or has no such option.
    """
    if isinstance(on, str) or hasattr(on, "address"):
        if policy is not None:
            raise InvalidConfig(f"policy={policy!r}: a server's policy is set where it is started")
        _check(options, run_over_http)
        return run_over_http(w, on, **options)
    if policy is not None:
        options["policy"] = policy
    if hasattr(on, "engine") and callable(getattr(on, "run", None)):
        _check(options, run_simulated, Machine.engine, on.engine)
        return run_simulated(w, on, **options)
    if hasattr(on, "machine") and callable(getattr(on, "run", None)):
        _check(options, run_on_several, Machine.engine)
        return run_on_several(w, on, **options)
    engine = getattr(on, "engine", on)
    if not (hasattr(engine, "scheduler") and hasattr(engine, "add")):
        raise InvalidConfig(
            f"a {type(on).__name__} runs no workload: give an LLM, an Engine, the URL of a server "
            "or a simulate.Machine"
        )
    _check(options, run_on_engine)
    return run_on_engine(w, engine, **options)


def run_on_engine(
    workload: Workload,
    engine: Any,
    *,
    policy: Any = None,
    warmup: int = 1,
    max_in_flight: int | None = None,
    progress: bool | None = None,
    params: SamplingParams | None = None,
    vocab_size: int | None = None,
    keep_prefix_cache: bool = False,
) -> Run:
    """Ask an engine of this process, which its own thread runs.

    Args:
        workload: What to ask.
        engine: On wall time, with a record.
        policy: For this run.
        warmup: Requests before those that are measured, with other prompts of the same lengths.
        max_in_flight: How many may be under way at once; what that holds back is reported.
        progress: Whether to show a bar; by default where it takes long.
        params: Of every request; ``max_tokens`` is the workload's. Greedy by default, and to the
            length that the workload says.
        vocab_size: Token ids of prompts are below it; the model's by default.
        keep_prefix_cache: Whether to begin with what earlier requests left in the cache.

    Raises:
        InvalidConfig: the engine keeps no record, its clock is virtual, its vocabulary unknown, or
            an option makes no sense.
    """
    check_max_in_flight(max_in_flight)
    record = engine.record
    if not isinstance(record, Record) or record.origin_s is None:
        raise InvalidConfig("this engine keeps no record: give Engine(..., recorder=Record())")
    if isinstance(engine.clock, VirtualClock):
        raise InvalidConfig(
            "this engine's clock is virtual: use simulate.drive, or run(on=machine)"
        )
    vocab_size = _vocab_size(engine) if vocab_size is None else vocab_size
    params = params or SamplingParams(temperature=0.0, ignore_eos=True)
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    before = engine.scheduler.policy
    if policy is not None:
        engine.set_policy(policy)
    try:
        if warmup:
            first = warmup_of(workload, warmup, vocab_size=vocab_size)
            if ask(engine, first, vocab_size=vocab_size, params=params).is_interrupted:
                raise KeyboardInterrupt
        if not keep_prefix_cache:
            engine.reset_prefix_cache()
        with (
            record.during("load") as part,
            progress_bar(len(workload), "Asking", unit="request", progress=progress) as bar,
            old_objects_set_aside(),
        ):
            asked = ask(
                engine,
                workload,
                vocab_size=vocab_size,
                params=params,
                max_in_flight=max_in_flight,
                progressed=bar.update,
            )
        served_by = engine.scheduler.policy.name
    finally:
        if policy is not None:
            engine.set_policy(before)
    watched = _judged_by_steps(asked.saturation, part)
    made = run_of_record(
        part,
        asked.request_ids,
        workload,
        start_s=asked.origin_s - record.origin_s,
        sent_s=asked.sent_s,
        refused=asked.refused,
        environment={**record.environment, "load_average_1_min": load_average},
        settings={
            "on": "engine",
            **record.config,
            "policy": served_by,
            "params": repr(params),
            "vocab_size": vocab_size,
            "max_in_flight": max_in_flight,
            "warmup": warmup,
            "keep_prefix_cache": keep_prefix_cache,
        },
        saturation=watched,
        is_interrupted=asked.is_interrupted,
    )
    made.notes += common_notes(
        made.requests, watched, is_interrupted=asked.is_interrupted, remedy=_REMEDY
    )
    return made


def _judged_by_steps(watched: Saturation | None, record: Record) -> Saturation | None:
    """Return the verdict where a request may be as late as a step is long: see `Saturation`."""
    durations_s = record.steps["duration_s"]
    if watched is None or durations_s.empty:
        return watched
    return replace(watched, allowed_lag_s=max(MAX_LAG_S, float(durations_s.quantile(0.99))))


def run_simulated(
    workload: Workload, machine: Any, *, progress: bool | None = None, **options: Any
) -> Run:
    """Serve a workload on a new engine of a simulated machine; options are ``engine()``'s."""
    engine = machine.engine(**options)
    arrivals = workload.arrivals(block_size=engine.config.cache.block_size)
    request_ids = drive(engine, arrivals, progress=progress)
    made = run_of_record(
        engine.record,
        request_ids,
        workload,
        refused=_refused(workload, request_ids),
        environment=engine.record.environment,
        settings={
            "on": "simulation",
            **machine.describe(),
            **engine.record.config,
            **_plain(options),
        },
    )
    made.notes += common_notes(made.requests, None)
    return made


def run_on_several(
    workload: Workload, machines: Any, *, progress: bool | None = None, **options: Any
) -> Run:
    """Serve a workload on several simulated machines: a ``Fleet``, or ``Disaggregated``."""
    block_size = own_engine(machines.machine, options).config.cache.block_size
    done = machines.run(workload.arrivals(block_size=block_size), progress=progress, **options)
    request_ids = dict(zip(done.requests["arrival_id"], done.requests["request_id"], strict=True))
    made = run_of_requests(
        done.requests,
        NO_TOKENS.copy(),
        workload,
        refused=_refused(workload, request_ids),
        environment=done.records[0].environment,
        settings={"on": done.title, **done.records[0].config, **_plain(options)},
    )
    made.notes += common_notes(made.requests, None)
    return made


def _refused(workload: Workload, request_ids: Any) -> list[Refusal]:
    """Return the requests that a simulated engine did not take in."""
    if len(request_ids) == len(workload):
        return []
    table = workload.table
    missing = table[~table["arrival_id"].isin(list(request_ids))]
    due_s = missing["due_s"].where(missing["after"] < 0)
    why = "the engine refused it: prompt and output do not fit (record.events has the reason)"
    return [
        Refusal(arrival_id, time_s, time_s, why)
        for arrival_id, time_s in zip(missing["arrival_id"].tolist(), due_s.tolist(), strict=True)
    ]


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as values that can be compared and written: of what is code, its name."""
    return {
        name: value
        if value is None or isinstance(value, str | int | float)
        else getattr(value, "name", None) or getattr(value, "__name__", repr(value))
        for name, value in options.items()
    }


def _vocab_size(engine: Any) -> int:
    try:
        return int(engine.runner.decoder.spec.vocab_size)
    except AttributeError as error:
        raise InvalidConfig(
            "how many tokens this engine's model knows cannot be seen: give vocab_size=..."
        ) from error


def _check(options: dict[str, Any], *functions: Callable[..., Any]) -> None:
    """Refuse options that no function takes by name, naming those that they take."""
    known = {
        parameter.name: None
        for function in functions
        for parameter in signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidConfig(
            f"run() has no option {', '.join(unknown)} for this target; it has {', '.join(known)}"
        )
