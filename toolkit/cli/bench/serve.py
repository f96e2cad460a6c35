"""``toolkit bench serve``: latency and throughput of any OpenAI-compatible server."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.bench.metrics import request_metrics
from toolkit.cli.bench.options import (
    InputLen,
    OutputLen,
    OutputOrFolder,
    Repeats,
    Seed,
    Warmups,
    WorkloadFile,
    report,
    workload_for,
    workload_settings,
)
from toolkit.cli.bench.results import combine
from toolkit.cli.options import given
from toolkit.errors import InvalidConfig, ToolkitError

if TYPE_CHECKING:  # pandas takes a while, and `toolkit --help` need not wait for it
    from toolkit.experiments import Run, Workload
    from toolkit.experiments.workloads.arrivals import Arrivals

__all__ = ["serve"]

_NUM_PROMPTS = 32
_WARNS = "toolkit.experiments.runs.notes"  # who warns of a client that did not keep up


def serve(
    url: Annotated[str | None, typer.Argument(help="The server, with or without /v1.")] = None,
    base_url: Annotated[str, typer.Option(help="The same, where no URL is given.")] = (
        "http://127.0.0.1:8000"
    ),
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Its name there; the first listed.")
    ] = None,
    api: Annotated[str, typer.Option(help="completions or chat.")] = "completions",
    prompts: Annotated[
        str | None, typer.Option(help="token_ids or text; ids where the API takes them.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="What the server asks for.")
    ] = None,
    num_prompts: Annotated[
        int | None, typer.Option(min=1, help="Requests of a run: 32, or all of a trace.")
    ] = None,
    request_rate: Annotated[
        float | None,
        typer.Option(
            "--request-rate",
            "--rate",
            min=0.001,
            help="Requests/s, Poisson arrivals; inf: all at once. A trace has times of its own.",
        ),
    ] = None,
    burstiness: Annotated[
        float, typer.Option(min=0.001, help="Below 1 arrivals come in bursts; 1 is Poisson.")
    ] = 1.0,
    input_len: InputLen = 128,
    output_len: OutputLen = 128,
    vocab_size: Annotated[
        int, typer.Option(min=4, help="Random prompts use token ids below this.")
    ] = 1000,
    workload: WorkloadFile = None,
    trace: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Ask what a trace says.")
    ] = None,
    trace_format: Annotated[
        str, typer.Option(help="azure, mooncake, burstgpt, vidur or toolkit.")
    ] = "toolkit",
    max_concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Requests under way at once; hides the queue that it makes."),
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option(help="Ask for the whole length; an extension, not all servers know it.")
    ] = True,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Client processes; more where the rate asks for it.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a request may take.")] = (
        600.0
    ),
    seed: Seed = 0,
    num_warmups: Warmups = 1,
    repeats: Repeats = 5,
    output: OutputOrFolder = None,
) -> None:
    """Measure a server from outside, open loop: TTFT, TPOT, ITL, E2EL and throughput.

    Each run asks new random prompts, for a server may remember the old ones; a workload file is
    asked as it is, and cached_tokens tells what the server remembered. With an --output that does
    not end in .json, a folder is written: result.json, and each run with all its tokens. An
    interrupt ends it with nothing written: a run that was cut short is no repeat of the others.
    """
    from toolkit import experiments
    from toolkit.simulate import progress_bar

    runs: list[Run] = []
    arrivals = _arrivals(request_rate, burstiness)
    num_runs = num_warmups + repeats
    with progress_bar(num_runs, "Measuring", unit="run", progress=None) as bar:
        for index in range(num_runs):
            asked = (
                workload_for(
                    workload,
                    num_prompts=num_prompts or _NUM_PROMPTS,
                    input_len=input_len,
                    output_len=output_len,
                    seed=seed + index,
                    arrivals=arrivals,
                )
                if trace is None
                else _traced(trace, trace_format, num_prompts, seed + index, arrivals)
            )
            number = index - num_warmups
            with _named("warm-up" if number < 0 else f"run {number}"):
                run = experiments.run(
                    asked,
                    on=url or base_url,
                    warmup=0,
                    api=api,
                    vocab_size=vocab_size,
                    ignore_eos=ignore_eos,
                    max_in_flight=max_concurrency,
                    timeout_s=timeout,
                    **given(model=model, prompts=prompts, api_key=api_key, processes=processes),
                )
            if run.is_interrupted:
                raise KeyboardInterrupt
            _require_answers(run)
            if number >= 0:
                runs.append(run)
            bar.update()
    settings = {
        **{name: value for name, value in runs[-1].settings.items() if name != "on"},
        "base_url": url or base_url,
        "request_rate": str(asked.rate),
        "burstiness": burstiness,
        "seed": seed,
        **workload_settings(asked),
    }
    notes = list(dict.fromkeys(note for run in runs for note in run.notes))
    notes += [
        f"run {number}: {run.saturation}"
        for number, run in enumerate(runs)
        if run.saturation and run.saturation.is_saturated
    ]
    result = combine("serve", settings, list(map(request_metrics, runs)), notes)
    if output is None or output.suffix == ".json":
        report(result, output)
        return
    for number, run in enumerate(runs):
        run.save(output / f"run-{number}.zip")
    report(result, output / "result.json")


def _traced(
    path: Path, format: str, num_requests: int | None, seed: int, arrivals: Arrivals | None
) -> Workload:
    from toolkit.experiments import Workload

    if format == "sharegpt":
        raise InvalidConfig("a sharegpt trace needs a tokenizer: use experiments.run in Python")
    try:
        workload = Workload.from_trace(path, format=format, num_requests=num_requests, seed=seed)
    except InvalidConfig as error:
        raise InvalidConfig(f"{error} (it was read with --trace-format {format})") from error
    return workload if arrivals is None else workload.with_arrivals(arrivals)


def _arrivals(rate: float | None, burstiness: float) -> Arrivals | None:
    """Return the process that the options name; None for a workload's own times."""
    from toolkit.experiments import AtOnce, Gamma, Poisson

    if rate is None:
        return None
    if rate == math.inf:
        return AtOnce()
    return Poisson(rate) if burstiness == 1 else Gamma(rate, burstiness)


@contextmanager
def _named(run: str) -> Iterator[None]:
    """Say of which run it is what a run warns of."""

    def put_before(record: logging.LogRecord) -> bool:
        record.msg = f"{run}: {record.msg}"
        return True

    logger = logging.getLogger(_WARNS)
    logger.addFilter(put_before)
    try:
        yield
    finally:
        logger.removeFilter(put_before)


def _require_answers(run: Run) -> None:
    requests = run.requests
    if not (requests["status"] == "finished").any():
        first = requests["error"].iloc[0]
        raise ToolkitError(f"none of {len(requests)} requests was answered; the first: {first}")
