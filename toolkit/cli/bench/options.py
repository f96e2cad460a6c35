"""Options that the benchmarks share, with vLLM's names where the meaning agrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import track

from toolkit.cli.bench.results import BenchResult
from toolkit.cli.console import out
from toolkit.cli.options import given
from toolkit.errors import InvalidConfig
from toolkit.files import ready_to_write

if TYPE_CHECKING:
    from toolkit.experiments import Workload
    from toolkit.experiments.workloads.arrivals import Arrivals

__all__ = [
    "BatchInvariant",
    "InputLen",
    "Kernels",
    "MaxNumBatchedTokens",
    "NumThreads",
    "Output",
    "OutputLen",
    "OutputOrFolder",
    "Quantization",
    "Repeats",
    "Seed",
    "SkipTokenizer",
    "Warmups",
    "WorkloadFile",
    "check_fits",
    "load_llm",
    "model_settings",
    "report",
    "with_progress",
    "workload_for",
    "workload_settings",
]

T = TypeVar("T")

InputLen = Annotated[int, typer.Option(min=1, help="Tokens of each random prompt.")]
OutputLen = Annotated[int, typer.Option(min=1, help="Tokens that each request generates.")]
WorkloadFile = Annotated[
    Path | None,
    typer.Option(
        "--workload",
        help="Instead of random prompts: a CSV of Workload.to_csv, or a JSON list of "
        '{"prompt_token_ids", "output_len"}.',
    ),
]
MaxNumBatchedTokens = Annotated[int | None, typer.Option(help="Tokens computed in one step.")]
Kernels = Annotated[str, typer.Option(help="auto, reference (plain PyTorch), cpu or triton.")]
Quantization = Annotated[str | None, typer.Option(help="int8 or int4 weights.")]
BatchInvariant = Annotated[
    bool, typer.Option("--batch-invariant", help="The same bits whatever the batch.")
]
NumThreads = Annotated[int | None, typer.Option(min=1, help="CPU threads.")]
SkipTokenizer = Annotated[
    bool,
    typer.Option("--skip-tokenizer-init", help="Make no text: for models without a tokenizer."),
]
Seed = Annotated[int, typer.Option(help="Seeds the random prompts.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs that are measured.")]
Warmups = Annotated[int, typer.Option("--num-warmups", min=0, help="Runs before those.")]


def _writable(path: Path | None) -> Path | None:
    """Make the folder of a file, or say why that cannot be, before anything is measured."""
    return None if path is None else ready_to_write(path)


def _writable_or_folder(path: Path | None) -> Path | None:
    """Make the folder of a file, or the folder itself where the name is not that of JSON."""
    if path is None or path.suffix == ".json":
        return _writable(path)
    return ready_to_write(path / "result.json").parent


OutputOrFolder = Annotated[
    Path | None,
    typer.Option(
        help="Write the result to this file, as JSON; into a folder, with all that was measured.",
        callback=_writable_or_folder,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(help="Write the result to this file, as JSON.", callback=_writable),
]


def load_llm(
    model: str | None, *, skip_tokenizer_init: bool, batch_invariant: bool, **options: Any
) -> Any:
    """Load an LLM; options that are None stay at its defaults."""
    from toolkit.llm import LLM

    chosen = given(**options)
    if skip_tokenizer_init:
        chosen["tokenizer"] = False
    if batch_invariant:
        chosen["batch_invariant"] = True
    return LLM(model, **chosen)


def model_settings(llm: Any, **options: Any) -> dict[str, Any]:
    """Return the settings that a figure depends on: what was asked, and what was chosen for it."""
    plan, scheduler = llm.memory_plan(), llm.engine.config.scheduler
    decoder = llm.engine.runner.decoder
    return {
        "model": llm.model_name,
        "num_parameters": plan.weight_bytes // plan.layout.dtype.itemsize,
        "dtype": str(plan.layout.dtype).removeprefix("torch."),
        "device": plan.device,
        "kernels": decoder.ops.name,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        **options,
    }


def workload_for(
    path: Path | None,
    *,
    num_prompts: int,
    input_len: int,
    output_len: int,
    seed: int,
    arrivals: Arrivals | None = None,
) -> Workload:
    """Return the workload of a file, or random prompts of one length, all at once.

    With ``arrivals`` both come at other times.
    """
    from toolkit.experiments import AtOnce, Fixed, Workload

    if path is None:
        lengths = Fixed(input_len, output_len)
        return Workload(arrivals or AtOnce(), lengths, num_requests=num_prompts, seed=seed)
    workload = Workload.from_trace(path, format="toolkit")
    return workload if arrivals is None else workload.with_arrivals(arrivals)


def check_fits(workload: Workload, max_model_len: int) -> None:
    """Raise InvalidConfig unless each request fits in the model's context."""
    columns = workload.columns
    longest = int((columns.num_prompt_tokens + columns.num_output_tokens).max())
    if longest > max_model_len:
        raise InvalidConfig(
            f"a request of {longest} tokens, prompt and output, exceeds max_model_len="
            f"{max_model_len}; lower --input-len or --output-len"
        )


def workload_settings(workload: Workload) -> dict[str, Any]:
    """Return what tells one workload from another, for the settings of a result."""
    columns = workload.columns
    return {
        "num_prompts": len(workload),
        "num_prompt_tokens": int(columns.num_prompt_tokens.sum()),
        "num_output_tokens": int(columns.num_output_tokens.sum()),
        "workload_sha256": workload.fingerprint,
    }


def with_progress(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield the items with a bar on the terminal, if it is one, until the last is done."""
    console = Console(stderr=True)
    return iter(
        track(items, what, console=console, transient=True, disable=not console.is_terminal)
    )


def report(result: BenchResult, path: Path | None) -> None:
    """Print a result, and save it if a file is named."""
    out.print(result.table())
    settings = ", ".join(f"{name}={value}" for name, value in result.settings.items())
    out.print(settings, style="dim", markup=False)
    machine = ", ".join(f"{name}={value}" for name, value in result.environment.items())
    out.print(machine, style="dim", markup=False)
    for note in result.notes:
        out.print(note, markup=False)
    if path is not None:
        result.save(path)
        out.print(f"written to {path}", markup=False)
