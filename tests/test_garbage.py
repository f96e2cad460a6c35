"""Python's garbage collector while something is served; in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(script: str) -> None:
    """Run a script in a new interpreter; an assertion that fails there fails here."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_old_objects_are_set_aside_until_the_last_block_ends() -> None:
    run("""
import gc
from toolkit.garbage import old_objects_set_aside
with old_objects_set_aside():
    frozen = gc.get_freeze_count()
    assert frozen > 1000
    with old_objects_set_aside():
        pass
    assert gc.get_freeze_count() == frozen
assert gc.get_freeze_count() == 0
""")


@pytest.mark.slow
def test_new_cycles_are_collected_meanwhile_and_old_ones_afterwards() -> None:
    run("""
import gc, weakref
from toolkit.garbage import old_objects_set_aside

class Node:
    def __init__(self):
        self.itself = self

old = Node()
seen_old = weakref.ref(old)
with old_objects_set_aside():
    new = Node()
    seen_new = weakref.ref(new)
    del old, new
    gc.collect()
    assert seen_new() is None
    assert seen_old() is not None
gc.collect()
assert seen_old() is None
""")
