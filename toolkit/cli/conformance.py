"""``toolkit conformance``: check any OpenAI-compatible server, point by point."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from toolkit.cli.console import err, out
from toolkit.files import ready_to_write

__all__ = ["conformance"]

_MARKS = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "not supported": "[dim]n/a[/]"}


def conformance(
    url: Annotated[str, typer.Argument(help="Where the server is, with or without /v1.")],
    api_key: Annotated[
        str | None, typer.Option(envvar="TOOLKIT_API_KEY", help="What the server wants.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The name to ask for; the first that is listed by default.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Points to check: 'streams/*', or a part of an id.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every finding into this file.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one answer may take.")] = 120.0,
) -> None:
    """Check a server as OpenAI's clients use it: shapes, streams, errors, tools, usage.

    Exits with 1 if a point fails without which clients break ("must").
    """
    from toolkit.conformance import run

    with err.status("checking") as status:
        report = run(
            url,
            api_key=api_key,
            model=model,
            only=only,
            timeout_s=timeout,
            on_finding=lambda finding: status.update(f"checked {finding.id}"),
        )
    _show(report)
    if json_file is not None:
        ready_to_write(json_file).write_text(report.to_json() + "\n", encoding="utf-8")
    if not report:
        raise typer.Exit(1)


def _show(report: Any) -> None:
    table = Table(title_justify="left")
    for name in ("point", "level", "verdict"):
        table.add_column(name, no_wrap=True)
    table.add_column("what must hold, and what was found", overflow="fold")
    topic = None
    for finding in report.findings:
        if topic not in (None, finding.id.partition("/")[0]):
            table.add_section()
        topic = finding.id.partition("/")[0]
        mark = _MARKS[finding.verdict]
        table.add_row(escape(finding.id), finding.level, mark, _told(finding))
    out.print(table)
    out.print(escape(report.summary()), soft_wrap=True)


def _told(finding: Any) -> str:
    """Return what a row says: the rule where it holds, else all about it."""
    lines = [escape(finding.what)]
    if finding.verdict == "fail":
        lines += [f"[red]{escape(finding.detail)}[/]", f"[dim]why: {escape(finding.why)}[/]"]
        lines += [f"[dim]{escape(finding.evidence)}[/]"] if finding.evidence else []
    elif finding.detail:
        lines.append(f"[dim]{escape(finding.detail)}[/]")
    lines += [f"[yellow]{escape(note)}[/]" for note in finding.notes]
    return "\n".join(lines)
