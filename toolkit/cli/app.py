"""The commands, and how their errors look."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from toolkit import __version__
from toolkit.cli.bench.app import bench
from toolkit.cli.chat import chat
from toolkit.cli.conformance import conformance
from toolkit.cli.console import err
from toolkit.cli.demo import demo
from toolkit.cli.doctor import doctor
from toolkit.cli.experiment import experiment, report
from toolkit.cli.generate import generate
from toolkit.cli.serve import serve
from toolkit.errors import ToolkitError

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Says in one line what went wrong; --traceback shows where."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (ToolkitError, ImportError) as error:
            if ctx.params.get("traceback"):
                raise
            err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="toolkit",
    cls=_Commands,
    help="LLM serving for people who live in notebooks: a batching engine to look into.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (generate, chat, serve, conformance, report, doctor, demo):
    app.command()(command)
app.add_typer(bench)
app.add_typer(experiment)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line."""
    app()
