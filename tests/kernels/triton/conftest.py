"""What the tests of the Triton ops share; without a GPU they run under the interpreter.

tests/conftest.py switches it on, before anything imports Triton.
"""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
