"""Memory in large pages: what is placed in it, and that it is this process's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from toolkit.kernels.memory import PageArena, untouched_zeros

MIB = 1 << 20


def test_an_arena_keeps_what_is_placed_in_it():
    arena = PageArena()
    given = [torch.randn(shape) for shape in ((3, 5), (0, 4), (1,), (2000, 1000), (5000, 4000))]
    given.append(torch.arange(7, dtype=torch.int16))
    placed = [arena.place(x) for x in given]
    for mine, x in zip(placed, given, strict=True):
        assert mine.equal(x)
        assert mine.dtype is x.dtype
        assert mine.is_contiguous()
        assert mine.data_ptr() % 64 == 0 or mine.numel() == 0
    placed[0].fill_(7.0)
    assert all(mine.equal(x) for mine, x in zip(placed[1:], given[1:], strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_does_not_write_into_its_parents_memory():
    zeros = untouched_zeros((MIB,), torch.float32)
    child = os.fork()
    if child == 0:
        zeros.numpy()[:] = 1.0
        os._exit(0)
    os.waitpid(child, 0)
    assert zeros[:100].eq(0.0).all()


def test_pages_are_large_where_the_system_has_them():
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[never]" in enabled.read_text():
        pytest.skip("the system has no large pages")
    zeros = untouched_zeros((64 * MIB,), torch.uint8)
    zeros.fill_(1)
    sizes, inside = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds = line.split(" ", 1)[0].split("-")
        if len(bounds) == 2:
            inside = int(bounds[0], 16) <= zeros.data_ptr() < int(bounds[1], 16)
        elif inside and line.startswith("AnonHugePages:"):
            sizes.append(int(line.split()[1]))
    assert sum(sizes) > 0
