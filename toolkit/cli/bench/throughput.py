"""``toolkit bench throughput``: all requests at once, greedy, through ``LLM.generate``."""

from __future__ import annotations

import time
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

__all__ = ["measure_throughput", "throughput"]


def throughput(
    model: Model = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="Requests, all at once.")] = 32,
    input_len: InputLen = 128,
    output_len: OutputLen = 128,
    workload: WorkloadFile = None,
    dtype: Dtype = "auto",
    max_model_len: MaxModelLen = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Requests that run at once.")] = None,
    max_num_batched_tokens: MaxNumBatchedTokens = None,
    quantization: Quantization = None,
    batch_invariant: BatchInvariant = False,
    kernels: Kernels = "auto",
    num_threads: NumThreads = None,
    skip_tokenizer_init: SkipTokenizer = False,
    seed: Seed = 0,
    num_warmups: Warmups = 1,
    repeats: Repeats = 5,
    output: Output = None,
) -> None:
    """Measure offline throughput: all requests at once, fixed output lengths."""
    with load_llm(
        model,
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        quantization=quantization,
        batch_invariant=batch_invariant,
        kernels=kernels,
        num_threads=num_threads,
        skip_tokenizer_init=skip_tokenizer_init,
    ) as llm:
        load = workload_for(
            workload,
            num_prompts=num_prompts,
            input_len=input_len,
            output_len=output_len,
            seed=seed,
        )
        check_fits(load, llm.max_model_len)
        rounds = with_progress(range(num_warmups + repeats), "runs")
        runs = [measure_throughput(llm, load) for _ in rounds][num_warmups:]
        settings = model_settings(
            llm,
            quantization=quantization,
            batch_invariant=batch_invariant,
            **workload_settings(load),
        )
    report(combine("throughput", settings, runs), output)


def measure_throughput(llm: Any, workload: Workload) -> dict[str, float]:
    """Ask a workload at once, whatever its times, with an empty prefix cache; vLLM's metrics.

    Raises RequestFailed if a request did not end with as many tokens as it was to have.
    """
    from toolkit.errors import RequestFailed
    from toolkit.request import SamplingParams

    lengths = workload.columns.num_output_tokens.tolist()
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in lengths]
    vocab_size = llm.engine.runner.decoder.spec.vocab_size
    prompts = [workload.prompt_token_ids(k, vocab_size) for k in range(len(workload))]
    llm.reset_prefix_cache()
    with OtherLoad() as load:
        start_s = time.perf_counter()
        outputs = llm.generate(prompts, params, progress=False)
        elapsed_s = time.perf_counter() - start_s
    counts = [len(output.outputs[0].token_ids) for output in outputs]
    short = sum(count < length for count, length in zip(counts, lengths, strict=True))
    if short:
        raise RequestFailed(f"{short} of {len(lengths)} requests failed; their errors are logged")
    num_output = sum(counts)
    num_prompt = sum(map(len, prompts))
    return {
        "elapsed_s": elapsed_s,
        "request_throughput": len(prompts) / elapsed_s,
        "output_throughput": num_output / elapsed_s,
        "total_token_throughput": (num_prompt + num_output) / elapsed_s,
        "cached_tokens": sum(output.num_cached_tokens or 0 for output in outputs),
        "other_cores": load.cores,
    }
