"""``toolkit experiment`` and ``toolkit report``: papers' experiments, and one page about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from toolkit.cli.console import err, out

if TYPE_CHECKING:  # pandas waits until a command needs it
    from toolkit.experiments.claims.judging import VerdictTable

__all__ = ["experiment", "report"]

_STYLES = {"✓": "green", "✗": "red", "–": "dim"}  # by a verdict's mark

experiment = typer.Typer(
    name="experiment",
    help="Repeat experiments of papers, and judge their claims.",
    no_args_is_help=True,
    add_completion=False,
)


@experiment.command("list")
def list_experiments() -> None:
    """Show the experiments, and how many claims each of them checks."""
    from toolkit.experiments.catalogue import EXPERIMENTS

    table = Table("name", "question", "claims")
    table.columns[2].justify = "right"
    for name, module in EXPERIMENTS.items():
        table.add_row(name, module.TITLE, str(len(module.CLAIMS)))
    out.print(table)
    for name, module in EXPERIMENTS.items():
        needs = getattr(module, "NEEDS", "")  # most need nothing
        if needs:
            out.print(f"{name}: to judge its claims it {needs}", soft_wrap=True)


@experiment.command("run")
def run_experiments(
    names: Annotated[list[str], typer.Argument(help="Names that `list` shows, or: all.")],
    size: Annotated[str, typer.Option(help="quick: a minute; paper: as in the paper.")] = "quick",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results.")] = Path(
        "results"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Everything drawn follows from it.")] = 0,
) -> None:
    """Run experiments, print the verdicts, and keep tables and figures in a folder."""
    from toolkit.experiments.catalogue import EXPERIMENTS, find
    from toolkit.experiments.claims.judging import run_experiment, verdict_table
    from toolkit.experiments.claims.table import find_claim

    chosen = list(EXPERIMENTS) if names == ["all"] else [name.replace("-", "_") for name in names]
    for name in chosen:
        find(name)  # a wrong name is said before anything runs
    for name in chosen:
        result = run_experiment(name, size, seed=seed)
        place = result.save(output / name)
        figure = find(name).plot(result)
        for ending in ("png", "pdf"):
            figure.savefig(place / f"figure.{ending}", bbox_inches="tight", pad_inches=0.04)
        claims = [find_claim(claim_id) for claim_id in find(name).CLAIMS]
        if claims:
            _show(verdict_table([result], claims), title=find(name).TITLE)
        err.print(f"{place}: experiment.json, {len(result.data)} tables, figure.png, figure.pdf")


def report(
    folder: Annotated[
        Path, typer.Argument(help="Where `experiment run` or `bench serve` wrote to.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; in the folder by default.")
    ] = None,
) -> None:
    """Write one HTML page about a folder of results."""
    from toolkit.experiments.reports import report as write_report

    out.print(str(write_report(folder, output)), soft_wrap=True)


def _show(verdicts: VerdictTable, *, title: str) -> None:
    """Print what a cell shows, in colours by verdict."""
    out.print(Text(title, style="bold"))
    for line in repr(verdicts).splitlines():
        out.print(Text(line, style=_STYLES.get(line[:1], "")))
