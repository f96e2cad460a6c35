"""Run notebook 02 and keep its figure as the README's picture."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE.parent / "02_step_by_step.ipynb"


def main() -> None:
    """Execute the notebook in memory and write the PNG of the cell tagged readme-picture."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    (cell,) = [cell for cell in notebook.cells if "readme-picture" in cell.metadata.get("tags", [])]
    (png,) = [output.data["image/png"] for output in cell.outputs if "data" in output]
    (HERE / "step_by_step.png").write_bytes(base64.b64decode(png))


if __name__ == "__main__":
    main()
