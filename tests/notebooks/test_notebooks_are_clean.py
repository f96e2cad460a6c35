"""Notebooks are committed as they are read: no outputs, no counts, short cells.

That they run from top to bottom is checked by `make notebooks`, and by `make test`.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent.parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_LINES = 15
CLEAR = "run: .venv/bin/jupyter nbconvert --clear-output --inplace"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[tuple[int, NotebookNode]]:
    """Number the cells, as a reader counts them, and keep those with code."""
    cells = enumerate(nbformat.read(path, as_version=4).cells, start=1)
    return [(number, cell) for number, cell in cells if cell.cell_type == "code"]


def test_there_are_notebooks_to_check() -> None:
    assert NOTEBOOKS


@each_notebook
def test_the_name_is_a_number_and_what_is_done(path: Path) -> None:
    assert re.fullmatch(r"\d\d(_[a-z0-9]+){2,}", path.stem)


@each_notebook
def test_the_file_is_valid(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=4))


@each_notebook
def test_there_are_no_outputs_and_no_counts(path: Path) -> None:
    for number, cell in code_cells(path):
        assert cell.outputs == [], f"cell {number} has outputs; {CLEAR} {path.name}"
        assert cell.execution_count is None, f"cell {number} is counted; {CLEAR} {path.name}"


@each_notebook
def test_the_metadata_names_the_language_and_nothing_else(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for number, cell in enumerate(notebook.cells, start=1):
        assert set(cell.metadata) <= {"tags"}, f"cell {number}: {dict(cell.metadata)}"


@each_notebook
def test_cells_are_short(path: Path) -> None:
    for number, cell in code_cells(path):
        lines = [line.strip() for line in cell.source.splitlines()]
        code = [line for line in lines if line and not line.startswith("#")]
        assert len(code) <= MAX_LINES, f"cell {number} has {len(code)} lines of code"


@each_notebook
def test_every_cell_parses_and_none_is_skipped(path: Path) -> None:
    for number, cell in code_cells(path):
        plain = TransformerManager().transform_cell(cell.source)  # magics become calls
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compile(plain, f"{path.name}, cell {number}", "exec", flags=flags)
        tags = {*cell.metadata.get("tags", ()), *re.findall(r"#\s*(NBVAL_SKIP)", cell.source)}
        assert not tags & {"nbval-skip", "skip-execution", "NBVAL_SKIP"}, f"cell {number}: {tags}"
