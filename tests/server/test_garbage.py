"""Python's garbage collector while a server runs."""

from __future__ import annotations

import gc
import weakref

from toolkit.server.garbage import old_objects_set_aside


class Node:
    """A thing that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_old_objects_are_set_aside_until_the_last_server_stops() -> None:
    before = gc.get_freeze_count()
    with old_objects_set_aside():
        frozen = gc.get_freeze_count()
        assert frozen > before
        with old_objects_set_aside():
            pass
        assert gc.get_freeze_count() == frozen
    assert gc.get_freeze_count() == 0


def test_new_cycles_are_collected_meanwhile_and_old_ones_afterwards() -> None:
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
