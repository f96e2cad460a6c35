"""What the tests of the Triton ops share: a GPU where there is one, else Triton's interpreter.

tests/conftest.py switches the interpreter on, before anything imports Triton.
"""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
