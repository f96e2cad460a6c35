"""The commands of ``toolkit bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from toolkit.cli.bench.compare import compare
from toolkit.cli.bench.kernels import kernels
from toolkit.cli.bench.latency import latency
from toolkit.cli.bench.results import BenchResult, shown
from toolkit.cli.bench.serve import serve
from toolkit.cli.bench.throughput import throughput
from toolkit.cli.console import out

__all__ = ["bench"]

bench = typer.Typer(
    name="bench",
    help="Measure throughput, latency, a server or the kernels, and compare two results.",
    no_args_is_help=True,
    add_completion=False,
)
for command in (throughput, latency, serve, kernels):
    bench.command()(command)


@bench.command("compare")
def compare_files(
    first: Annotated[Path, typer.Argument(help="A result (--output) to compare with.")],
    second: Annotated[Path, typer.Argument(help="The result to compare.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A setting or fact of the machine that may differ; repeatable."),
    ] = None,
) -> None:
    """Show the ratio of every metric of two results, if they were measured alike."""
    ratios = compare(BenchResult.load(first), BenchResult.load(second), allow=allow or ())
    table = Table("metric", title=f"{second.name} / {first.name}", title_justify="left")
    for name in (first.stem, second.stem, "ratio"):
        table.add_column(name, justify="right")
    table.add_column("")
    for ratio in ratios:
        remark = "within the spread" if ratio.ranges_overlap else ""
        quotient = "" if ratio.ratio is None else f"{ratio.ratio:.3f}"
        medians = (shown(ratio.first["median"]), shown(ratio.second["median"]))
        table.add_row(ratio.metric, *medians, quotient, remark)
    out.print(table)
