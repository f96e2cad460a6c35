"""``toolkit bench serve``: latency and throughput of any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.bench.metrics import request_metrics
from toolkit.cli.bench.options import (
    InputLen,
    Output,
    OutputLen,
    Repeats,
    Seed,
    Warmups,
    WorkloadFile,
    report,
    workload_for,
    workload_settings,
)
from toolkit.cli.bench.results import combine
from toolkit.errors import ToolkitError
from toolkit.experiments import AtOnce, Poisson

if TYPE_CHECKING:  # httpx comes with an extra, and only this command needs it
    from toolkit.cli.bench.open_loop import Answer

__all__ = ["serve"]


def serve(
    base_url: Annotated[str, typer.Option(help="The server, without /v1.")] = (
        "http://127.0.0.1:8000"
    ),
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Its name there; the first listed.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="What the server asks for.")
    ] = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="Requests of a run.")] = 32,
    request_rate: Annotated[
        float, typer.Option(min=0.001, help="Requests/s, Poisson arrivals; inf: all at once.")
    ] = float("inf"),
    input_len: InputLen = 128,
    output_len: OutputLen = 128,
    vocab_size: Annotated[
        int, typer.Option(min=4, help="Random prompts use token ids below this.")
    ] = 1000,
    workload: WorkloadFile = None,
    seed: Seed = 0,
    num_warmups: Warmups = 1,
    repeats: Repeats = 5,
    output: Output = None,
) -> None:
    """Measure a server from outside, open loop: TTFT, TPOT, ITL, E2EL and throughput.

    Each run asks new random prompts, for a server may remember the old ones; a workload file is
    asked as it is, and cached_tokens tells what the server remembered.
    """
    from toolkit.cli.bench.open_loop import ask_all, first_model

    name = model or first_model(base_url, api_key)
    arrivals = AtOnce() if request_rate == float("inf") else Poisson(request_rate)
    runs, notes = [], []
    for index in range(num_warmups + repeats):
        load = workload_for(
            workload,
            num_prompts=num_prompts,
            input_len=input_len,
            output_len=output_len,
            seed=seed + index,
        ).with_arrivals(arrivals)
        asked = ask_all(load, base_url=base_url, model=name, vocab_size=vocab_size, api_key=api_key)
        answers = asyncio.run(asked)
        metrics, complaints = _summary(answers)
        if index >= num_warmups:
            runs.append(metrics)
            notes += complaints
    settings = {
        "model": name,
        "base_url": base_url,
        "request_rate": str(request_rate),
        "seed": seed,
        **workload_settings(load),
    }
    report(combine("serve", settings, runs, notes), output)


def _summary(answers: Sequence[Answer]) -> tuple[dict[str, float], list[str]]:
    """Return the metrics of what was answered, and what went wrong with the rest."""
    times = [answer.times for answer in answers if answer.times is not None]
    errors = [answer.error for answer in answers if answer.error is not None]
    if not times:
        raise ToolkitError(f"none of {len(answers)} requests was answered; the first: {errors[0]}")
    metrics = request_metrics(times)
    metrics["failed"] = len(errors)
    metrics["cached_tokens"] = sum(answer.num_cached_tokens for answer in answers)
    metrics["max_send_lag_ms"] = 1e3 * max(answer.lag_s for answer in answers)
    return metrics, [f"{len(errors)} requests failed; the first: {errors[0]}"] if errors else []
