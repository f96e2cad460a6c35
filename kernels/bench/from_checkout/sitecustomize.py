"""Let Python import the toolkit from a checkout that is not installed, where there is no network.

With this folder and the checkout on PYTHONPATH every Python process finds ``toolkit``, and here
``toolkit.kernels`` in kernels/ops, as the installed package has it.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

_OPS = Path(__file__).resolve().parents[2] / "ops"


class _KernelsFinder:
    """Finds one package; all that is in it is then found in its folder."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "toolkit.kernels":
            return None
        return importlib.util.spec_from_file_location(
            name, _OPS / "__init__.py", submodule_search_locations=[str(_OPS)]
        )


sys.meta_path.insert(0, _KernelsFinder)
