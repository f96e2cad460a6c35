"""``toolkit bench latency``: one request alone, against what the machine allows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.bench.machine_load import OtherLoad
from toolkit.cli.bench.options import (
    BatchInvariant,
    InputLen,
    Kernels,
    MaxNumBatchedTokens,
    NumThreads,
    Output,
    OutputLen,
    Quantization,
    Repeats,
    Seed,
    SkipTokenizer,
    Warmups,
    WorkloadFile,
    check_fits,
    load_llm,
    model_settings,
    report,
    with_progress,
    workload_for,
    workload_settings,
)
from toolkit.cli.bench.results import combine
from toolkit.cli.options import Dtype, MaxModelLen, Model

if TYPE_CHECKING:  # it brings pandas, and `toolkit --help` need not wait for that
    from toolkit.experiments import Workload

__all__ = ["latency", "measure_latency"]


def latency(
    model: Model = None,
    input_len: InputLen = 128,
    output_len: OutputLen = 128,
    workload: WorkloadFile = None,
    dtype: Dtype = "auto",
    max_model_len: MaxModelLen = None,
    max_num_batched_tokens: MaxNumBatchedTokens = None,
    quantization: Quantization = None,
    batch_invariant: BatchInvariant = False,
    kernels: Kernels = "auto",
    num_threads: NumThreads = None,
    skip_tokenizer_init: SkipTokenizer = False,
    limits: Annotated[
        bool, typer.Option(help="Measure the machine's limits too, before and after each run.")
    ] = True,
    seed: Seed = 0,
    num_warmups: Warmups = 1,
    repeats: Repeats = 5,
    output: Output = None,
) -> None:
    """Measure one request alone: time to its first token, per token, and both against the limit."""
    with load_llm(
        model,
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_seqs=1,
        max_num_batched_tokens=max_num_batched_tokens,
        quantization=quantization,
        batch_invariant=batch_invariant,
        kernels=kernels,
        num_threads=num_threads,
        skip_tokenizer_init=skip_tokenizer_init,
    ) as llm:
        load = workload_for(
            workload, num_prompts=1, input_len=input_len, output_len=output_len, seed=seed
        ).head(1)
        check_fits(load, llm.max_model_len)
        for _ in range(num_warmups):
            measure_latency(llm, load)
        work = _least_work(llm, load, quantization) if limits else None
        runs = _runs(llm, load, repeats, work)
        settings = model_settings(
            llm,
            quantization=quantization,
            batch_invariant=batch_invariant,
            **workload_settings(load),
        )
        notes = _notes(load, work) if limits else []
    report(combine("latency", settings, runs, notes), output)


def measure_latency(llm: Any, workload: Workload) -> dict[str, float]:
    """Stream the first request of a workload, with an empty prefix cache; times in ms."""
    from toolkit.request import SamplingParams

    num_output = int(workload.columns.num_output_tokens[0])
    params = SamplingParams(temperature=0, max_tokens=num_output, ignore_eos=True)
    prompt = workload.prompt_token_ids(0, llm.engine.runner.decoder.spec.vocab_size)
    llm.reset_prefix_cache()
    arrivals_s: list[float] = []
    with OtherLoad() as load:
        start_s = time.perf_counter()
        for piece in llm.stream(prompt, params):
            arrivals_s += [time.perf_counter()] * len(piece.token_ids)
    ttft_s, e2el_s = arrivals_s[0] - start_s, arrivals_s[-1] - start_s
    metrics = {"ttft_ms": 1e3 * ttft_s, "e2el_ms": 1e3 * e2el_s}
    if len(arrivals_s) > 1:
        metrics["tpot_ms"] = 1e3 * (e2el_s - ttft_s) / (len(arrivals_s) - 1)
    return metrics | {"other_cores": load.cores}


@dataclass(frozen=True, slots=True)
class LeastWork:
    """What a request cannot do without: bytes that each output token reads, and prompt FLOPs."""

    num_bytes: float
    flops: float


def _least_work(llm: Any, workload: Workload, quantization: str | None) -> LeastWork | None:
    """Return a request's least work; None for a model that no spec describes."""
    from toolkit.cli.bench.model_work import decode_bytes, prefill_flops
    from toolkit.models import DecoderSpec

    spec = llm.engine.runner.decoder.spec
    if not isinstance(spec, DecoderSpec):
        return None
    num_prompt = int(workload.columns.num_prompt_tokens[0])
    # On the way from the first output token to the last, the context grows by one a token.
    context = num_prompt + int(workload.columns.num_output_tokens[0]) / 2
    itemsize = llm.memory_plan().layout.dtype.itemsize
    return LeastWork(
        num_bytes=decode_bytes(spec, context, itemsize, quantization),
        flops=prefill_flops(spec, num_prompt),
    )


def _runs(
    llm: Any, workload: Workload, repeats: int, work: LeastWork | None
) -> list[dict[str, float]]:
    """Measure the request ``repeats`` times, with the limits around each run if asked for.

    Of the limits before and after a run the better counts: one that was disturbed is too easy to
    reach. Between two runs a shared machine's limits may change by a third.
    """
    if work is None:
        return [measure_latency(llm, workload) for _ in with_progress(range(repeats), "runs")]
    from toolkit.cli.bench.limits import measure_limits

    dtype = llm.memory_plan().layout.dtype
    runs = []
    before = measure_limits(dtype)
    for _ in with_progress(range(repeats), "runs"):
        run = measure_latency(llm, workload)
        after = measure_limits(dtype)
        read, gemm = max(before.read, after.read), max(before.gemm, after.gemm)
        rates = {"read_gb_per_s": read / 1e9, "gemm_gflop_per_s": gemm / 1e9}
        runs.append(run | rates | _fractions(run, work, read, gemm))
        before = after
    return runs


def _fractions(
    run: dict[str, float], work: LeastWork, read: float, gemm: float
) -> dict[str, float]:
    """Return which part of the limit a run reached: 1 is as fast as the machine can be."""
    fractions = {"prefill_fraction_of_gemm_rate": work.flops / gemm / (run["ttft_ms"] / 1e3)}
    if "tpot_ms" in run:
        fractions["decode_fraction_of_read_rate"] = work.num_bytes / read / (run["tpot_ms"] / 1e3)
    return fractions


def _notes(workload: Workload, work: LeastWork | None) -> list[str]:
    """Say in words what the limits are about."""
    from toolkit.cli.bench.limits import last_level_cache_bytes

    if work is None:
        return ["no limits: no spec describes this model, so its work is not known"]
    notes = [
        f"decode reads {work.num_bytes / 1e6:.1f} MB a token; a prompt of "
        f"{int(workload.columns.num_prompt_tokens[0])} tokens takes {work.flops / 1e9:.1f} GFLOP"
    ]
    if work.num_bytes < last_level_cache_bytes():
        notes.append(
            "all of it fits in the last-level cache, so decode may pass the limit of memory"
        )
    return notes
