"""A table of what was compared with transformers, printed after the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_ROWS: list[dict[str, object]] = []


@pytest.fixture
def add_row() -> Callable[..., None]:
    """Add a row to the table of comparisons; columns by name."""

    def add(**row: object) -> None:
        _ROWS.append(row)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of this run."""
    if not _ROWS:
        return
    terminalreporter.section("tokens compared with transformers' generate")
    columns = list(_ROWS[0])
    widths = [
        max(len(str(row[name])) for row in [*_ROWS, dict.fromkeys(columns, "")]) for name in columns
    ]
    widths = [max(width, len(name)) for width, name in zip(widths, columns, strict=True)]
    for row in [{name: name for name in columns}, *_ROWS]:
        cells = (str(row[name]).ljust(width) for name, width in zip(columns, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
