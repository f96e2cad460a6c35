"""What the tests of the ops share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.kernels.numerics import CPU
from toolkit.kernels import Ops, select_ops


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Inputs this small take microseconds: threads would only wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(params=["reference"])
def ops(request: pytest.FixtureRequest) -> Ops:
    """Every implementation there is: a test that takes it runs on each."""
    return select_ops(request.param, CPU)
