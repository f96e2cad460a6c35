"""Every example in a docstring does what it shows."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from tests.test_layers import MODULES


@pytest.mark.parametrize("name", [name for name, p in MODULES.items() if ">>>" in p.read_text()])
def test_the_examples_of_a_module_hold(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0
