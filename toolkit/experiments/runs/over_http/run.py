"""Run a workload against an OpenAI-compatible server."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from toolkit.client.agenda import check_max_in_flight
from toolkit.client.processes import Outcome, ask
from toolkit.client.target import Target, facts_of
from toolkit.errors import InvalidConfig, ToolkitError
from toolkit.experiments.runs.notes import common_notes, description_of
from toolkit.experiments.runs.over_http.bodies import Speech, items
from toolkit.experiments.runs.over_http.tables import notes_on, requests_of, tokens_of
from toolkit.experiments.runs.results import Run
from toolkit.experiments.runs.saturation import Saturation, saturation
from toolkit.experiments.runs.warmup import warmup_of
from toolkit.record import Record
from toolkit.record.environment import environment
from toolkit.simulate import progress_bar

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["run_over_http"]

# Pieces of streams per second up to which one client process is left alone: less than half of what
# it can read (kernels/bench/http_client.py), so that it is mostly idle when something comes.
_PIECES_PER_S = 10_000


def run_over_http(
    workload: Workload,
    server: Any,
    *,
    warmup: int = 1,
    max_in_flight: int | None = None,
    progress: bool | None = None,
    model: str | None = None,
    api: str = "completions",
    prompts: str | None = None,
    decode: Callable[[Sequence[int]], str] | None = None,
    vocab_size: int = 1000,
    ignore_eos: bool = True,
    extra_body: Mapping[str, Any] | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    processes: int | str = "auto",
    timeout_s: float = 600.0,
) -> Run:
    """Ask any OpenAI-compatible server, from client processes; answers are streamed.

    Args:
        workload: What to ask.
        server: Its URL, with or without /v1, or a handle that ``toolkit.serve`` returned: of one in
            this process, the engine's record of the interval is kept too.
        warmup: Requests before those that are measured, with other prompts of the same lengths.
        max_in_flight: How many may be under way at once; what that holds back is reported.
        progress: Whether to show a bar; by default where it takes long.
        model: Its name at the server; the first that it lists by default.
        api: "completions" or "chat".
        prompts: "token_ids" or "text"; by default ids where the endpoint takes them.
        decode: Makes text of token ids, see `bodies.Speech`.
        vocab_size: Token ids of prompts are below it.
        ignore_eos: Whether to ask for as many tokens as the workload says, whatever the model says;
            an extension that some servers refuse.
        extra_body: Further fields of each request.
        api_key: What the server asks for.
        headers: Further headers of each request.
        processes: Client processes; "auto" takes more than one where the workload asks for more
            than some 10,000 tokens per second.
        timeout_s: A request that takes longer has failed.

    Raises:
        InvalidConfig: an option makes no sense.
        ToolkitError: the server names no model, or a client process died.
    """
    check_max_in_flight(max_in_flight)
    _check_timeout(timeout_s)
    target = _target(server, api=api, api_key=api_key, headers=headers or {})
    num_processes = _num_processes(workload, processes)
    facts = _facts(target, model, timeout_s=timeout_s)
    speech = Speech(
        api=api,
        model=facts["model"],
        vocab_size=vocab_size,
        prompts=prompts or ("text" if api == "chat" else "token_ids"),
        decode=decode,
        ignore_eos=ignore_eos,
        extra_body={} if extra_body is None else extra_body,
    )
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if warmup:
        first = warmup_of(workload, warmup, vocab_size=vocab_size)
        if ask(target, items(first, speech), timeout_s=timeout_s).is_interrupted:
            raise KeyboardInterrupt
    record = _record_of(server)
    with (
        nullcontext() if record is None else record.during("load") as part,
        progress_bar(len(workload), "Asking", unit="request", progress=progress) as bar,
    ):
        outcome = ask(
            target,
            items(workload, speech),
            num_processes=num_processes,
            max_in_flight=max_in_flight,
            timeout_s=timeout_s,
            progressed=bar.update,
        )
    requests = requests_of(outcome.answers, workload)
    watched = _watched(outcome, workload)
    return Run(
        requests=requests,
        tokens=tokens_of(outcome.answers),
        record=part,
        workload=workload,
        workload_description=description_of(workload),
        environment={
            **environment(),
            "url": target.url,
            "server": facts["server"],
            "load_average_1_min": load_average,
        },
        settings={
            "on": "server",
            "model": speech.model,
            "api": api,
            "prompts": speech.prompts,
            "decode": getattr(decode, "__qualname__", None if decode is None else repr(decode)),
            "vocab_size": vocab_size,
            "ignore_eos": ignore_eos,
            "extra_body": dict(speech.extra_body),
            "max_in_flight": max_in_flight,
            "warmup": warmup,
            "num_processes": num_processes,
            "timeout_s": timeout_s,
        },
        saturation=watched,
        is_interrupted=outcome.is_interrupted,
        notes=[
            *common_notes(requests, watched, is_interrupted=outcome.is_interrupted),
            *notes_on(outcome.answers, workload),
        ],
    )


def _target(server: Any, **options: Any) -> Target:
    if isinstance(server, str):
        return Target(url=server, **options)
    address = server.address
    if address.uds is not None:
        raise InvalidConfig("the server listens on a Unix socket; serve(port=0) gives it a port")
    target = Target(url=server.url, certfile=address.certfile, **options)
    return replace(target, api_key=target.api_key or address.api_key)


def _check_timeout(timeout_s: float) -> None:
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, Real) or not timeout_s > 0:
        raise InvalidConfig(f"timeout_s={timeout_s!r} must be a number of seconds above 0")


def _facts(target: Target, model: str | None, *, timeout_s: float) -> dict[str, Any]:
    """Return what the server says of itself; one that lists no models may still have the model."""
    try:
        facts = facts_of(target, timeout_s=timeout_s)
    except ToolkitError:
        if model is None:
            raise
        facts = {"server": None}
    return facts if model is None else {**facts, "model": model}


def _num_processes(workload: Workload, processes: int | str) -> int:
    if processes == "auto":
        mean_output = float(workload.table["num_output_tokens"].mean())
        pieces_per_s = workload.rate * mean_output
        if not math.isfinite(pieces_per_s):  # as fast as the server can
            return 1
        most = max(1, (os.cpu_count() or 1) // 2)
        return min(most, max(1, math.ceil(pieces_per_s / _PIECES_PER_S)))
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise InvalidConfig(f'processes={processes!r} must be "auto" or a number from 1')
    return processes


def _record_of(server: Any) -> Record | None:
    """Return the record of a server in this process."""
    record = None if isinstance(server, str) else getattr(server.engine, "record", None)
    return record if isinstance(record, Record) and record.is_live else None


def _watched(outcome: Outcome, workload: Workload) -> Saturation:
    answers = outcome.answers
    return saturation(
        [answer.sent_s - answer.free_s for answer in answers],
        [answer.free_s - answer.scheduled_s for answer in answers],
        rate=workload.rate,
        loop_lags_s=[lag_s for watch in outcome.watches for lag_s in watch.loop_lags_s],
        cpu_share=max((watch.cpu_share for watch in outcome.watches), default=math.nan),
        num_processes=len(outcome.watches),
        num_unsent=len(workload) - len(answers),
    )
