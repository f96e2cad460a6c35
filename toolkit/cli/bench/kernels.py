"""``toolkit bench kernels``: every op in every implementation, against the machine's limits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from toolkit.cli.bench.metrics import spread
from toolkit.cli.bench.options import NumThreads, Output, Repeats, with_progress
from toolkit.cli.bench.results import BenchResult, shown
from toolkit.cli.console import out
from toolkit.errors import InvalidConfig

if TYPE_CHECKING:  # these load torch, which `toolkit --help` does without
    from toolkit.cli.bench.kernel_cases import Case
    from toolkit.cli.bench.limits import MachineLimits
    from toolkit.kernels import Ops

__all__ = ["Timing", "kernels", "time_case"]

# A timing is of so many calls that the clock and the loop around it do not count.
_LEAST_S = 0.02
_MOST_CALLS = 2000
_CALLS_IN_GRAPH = 50  # so that the time in which a graph starts does not count


@dataclass(frozen=True, slots=True)
class Timing:
    """One op on one set of arguments: seconds a call, and the work of a call."""

    seconds: tuple[float, ...]  # of each repeat
    num_bytes: float
    flops: float

    @property
    def median_s(self) -> float:
        """Median over the repeats."""
        return statistics.median(self.seconds)


def kernels(
    op: Annotated[list[str] | None, typer.Option("--op", help="Only this op; repeatable.")] = None,
    implementation: Annotated[
        list[str] | None,
        typer.Option(
            "--implementation",
            help="reference, cpu, triton or triton-invariant; those of the device that are quick.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    num_threads: NumThreads = None,
    repeats: Repeats = 5,
    output: Output = None,
) -> None:
    """Time every op in every implementation that is here, at typical shapes.

    The weights of linears come from memory, as in a model. Everything else is the same in every
    call, so what fits in the processor's cache may pass the limit of memory. On a CUDA device calls
    are replayed from a graph.
    """
    import torch

    from toolkit.cli.bench.environment import environment
    from toolkit.cli.bench.limits import measure_limits

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    wanted = getattr(torch, dtype, None)
    if not isinstance(wanted, torch.dtype):
        raise InvalidConfig(f"dtype={dtype!r} is none that torch knows")
    there = _device(device)
    before = measure_limits(wanted, there)
    timings = list(_timings(op, implementation, wanted, repeats, there))
    after = measure_limits(wanted, there)
    # The better of both: a limit that was disturbed is too easy to reach.
    limits = replace(before, read=max(before.read, after.read), gemm=max(before.gemm, after.gemm))
    table, metrics = _table(), {}
    for case, name, timing in timings:
        table.add_row(case.op, case.label, name, *_rates(timing, limits))
        metrics[f"{case.op} {case.label} {name} us"] = {
            "median": round(1e6 * timing.median_s, 3),
            "min": round(1e6 * min(timing.seconds), 3),
            "max": round(1e6 * max(timing.seconds), 3),
            "runs": repeats,
        }
    out.print(table)
    note = (
        f"limits: {limits.read / 1e9:.1f} GB/s read, {limits.gemm / 1e9:.0f} GFLOP/s {dtype}; the "
        "last column is the least time they allow, in parts of the time taken"
    )
    out.print(note)
    if output is not None:
        both = before, after
        metrics["read limit GB/s"] = spread([limit.read / 1e9 for limit in both])
        metrics["product limit TFLOP/s"] = spread([limit.gemm / 1e12 for limit in both])
        # Results of CPUs are from before there was a choice.
        settings = {"dtype": dtype} | ({} if device == "cpu" else {"device": device})
        BenchResult("kernels", settings, environment(), metrics, [note]).save(output)


def _device(name: str) -> Any:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidConfig("device='cuda': torch sees no CUDA device here")
    if name not in ("cpu", "cuda"):
        raise InvalidConfig(f"device={name!r} is neither 'cpu' nor 'cuda'")
    return torch.device(name)


def _timings(
    ops: list[str] | None, names: list[str] | None, dtype: Any, repeats: int, device: Any = None
) -> Iterator[tuple[Case, str, Timing]]:
    import torch

    from toolkit.cli.bench.kernel_cases import CASES

    known = dict.fromkeys(case.op for case in CASES)
    if unknown := [op for op in ops or () if op not in known]:
        raise InvalidConfig(f"no op {', '.join(unknown)}; there are: {', '.join(known)}")
    there = device or torch.device("cpu")
    implementations = list(_implementations(names, there))
    cases = [case for case in CASES if not ops or case.op in ops]
    for case in with_progress(cases, "ops"):
        seen: list[Any] = []
        for name, implementation in implementations:
            function = getattr(implementation, case.op)
            if function not in seen:  # an op that is another implementation's has been timed
                seen.append(function)
                yield case, name, time_case(case, implementation, dtype, repeats, there)


_INVARIANT = "-invariant"


def _implementations(names: list[str] | None, device: Any) -> Iterator[tuple[str, Ops]]:
    """Yield what this machine has; complain of a name that it has not."""
    from toolkit.kernels import select_ops

    # Triton's interpreter is not to be timed, and the reference waits for a CUDA device.
    quick = ("reference", "cpu") if device.type == "cpu" else ("triton", "triton" + _INVARIANT)
    for name in names or quick:
        plain, is_invariant = name.removesuffix(_INVARIANT), name.endswith(_INVARIANT)
        try:
            yield name, select_ops(plain, device, batch_invariant=is_invariant)
        except ValueError as error:
            if names or device.type != "cpu":
                raise InvalidConfig(str(error)) from error


def time_case(case: Case, ops: Ops, dtype: Any, repeats: int, device: Any = None) -> Timing:
    """Time one op on one case's arguments, after a warm-up; a linear map as the model has it."""
    import torch

    from toolkit.cli.bench.kernel_cases import Draw
    from toolkit.cli.bench.op_work import op_work

    there = device or torch.device("cpu")
    with torch.inference_mode(), there:
        args = case.arguments(Draw(dtype))
        function = getattr(ops, case.op)
        work = op_work(case.op, args, function(*args, **case.options))
        copies = _copies(args, case.cold)
        if case.op == "linear" and ops.pack_linear(args[1], None) is not None:
            function = _call_packed
            copies = [(x, ops.pack_linear(weight, None)) for x, weight in copies]
        time_all = _time_on_cpu if there.type == "cpu" else _time_on_cuda
        seconds = time_all(function, copies, case.options, repeats)
    return Timing(tuple(seconds), work.num_bytes, work.flops)


def _time_on_cpu(
    function: Callable[..., Any], copies: list[Any], options: dict[str, Any], repeats: int
) -> list[float]:
    calls = cycle(copies)
    once_s = _time_calls(function, calls, options, 1)
    num_calls = max(1, min(int(_LEAST_S / max(once_s, 1e-7)), _MOST_CALLS))
    return [_time_calls(function, calls, options, num_calls) for _ in range(repeats)]


def _time_on_cuda(
    function: Callable[..., Any], copies: list[Any], options: dict[str, Any], repeats: int
) -> list[float]:
    import torch

    from toolkit.cli.bench.device_timing import seconds_per_call

    num_calls = max(len(copies), _CALLS_IN_GRAPH)
    calls = [partial(function, *args, **options) for args in islice(cycle(copies), num_calls)]
    return [seconds_per_call(calls, torch.device("cuda")) for _ in range(repeats)]


def _call_packed(x: Any, packed: Any) -> Any:
    return packed(x)


def _copies(args: tuple[Any, ...], cold: int | None) -> list[tuple[Any, ...]]:
    """Repeat the arguments with so many copies of one that no cache holds them all."""
    from toolkit.cli.bench.limits import beyond_cache_bytes

    if cold is None:
        return [args]
    weight = args[cold]
    count = -(-beyond_cache_bytes() // weight.nbytes)
    return [(*args[:cold], weight.clone(), *args[cold + 1 :]) for _ in range(count)]


def _time_calls(
    function: Callable[..., Any],
    calls: Iterator[tuple[Any, ...]],
    options: dict[str, Any],
    num_calls: int,
) -> float:
    """Return seconds per call."""
    started = time.perf_counter()
    for args in islice(calls, num_calls):
        function(*args, **options)
    return (time.perf_counter() - started) / num_calls


def _table() -> Table:
    table = Table(title="toolkit bench kernels", title_justify="left", box=None)
    for name in ("op", "shape", "kernels"):
        table.add_column(name, no_wrap=name != "shape")
    for name in ("us", "GB/s", "GFLOP/s", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rates(timing: Timing, limits: MachineLimits) -> tuple[str, ...]:
    seconds = timing.median_s
    fraction = limits.least_s(num_bytes=timing.num_bytes, flops=timing.flops) / seconds
    return (
        shown(round(1e6 * seconds, 1)),
        f"{timing.num_bytes / seconds / 1e9:.1f}",
        f"{timing.flops / seconds / 1e9:.1f}",
        f"{fraction:.0%}",
    )
