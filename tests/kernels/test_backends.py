"""Which implementation of the ops is chosen, and what is said where one is not here."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.kernels.numerics import CPU
from toolkit.kernels import reference, select_ops
from toolkit.kernels.backends import _require_right, _unless_wrong
from toolkit.kernels.triton.linear import linear as triton_linear

CUDA = torch.device("cuda")


def run(code: str) -> str:
    """Run Python code in a process of its own, without TRITON_INTERPRET."""
    ours = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ours,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def unwrapped(op: Any) -> Any:
    """Return an op without what picks its device, where there are several."""
    return getattr(op, "__wrapped__", op)


def test_triton_replaces_the_ops_that_it_has():
    triton, plain = select_ops("triton", CPU), select_ops("reference", CPU)
    assert repr(triton) == "Ops('triton')"
    assert triton.linear is reference.linear
    assert triton.fuse_layers is reference.fuse_layers
    for op in ("rms_norm", "layer_norm", "rotary_write_kv", "silu_mul", "race", "grouped_linear"):
        assert getattr(triton, op) is not getattr(plain, op)


def test_a_cuda_device_can_have_triton():
    """Choosing touches no device."""
    assert select_ops("triton", CUDA).name == "triton"
    assert select_ops("reference", CUDA).name == "reference"
    with pytest.raises(ValueError, match=r"no 'cpu' kernels .* 'auto', 'reference', 'triton'"):
        select_ops("cpu", CUDA)


@pytest.mark.slow
def test_auto_takes_triton_where_its_ops_are_right_and_else_says_which_are_not(caplog):
    ops = select_ops("triton", CPU)
    assert _unless_wrong(ops, CPU) is ops
    assert not caplog.records
    twisted = replace(ops, silu_mul=lambda gate_up: 2 * reference.silu_mul(gate_up))
    assert _unless_wrong(twisted, CPU) is select_ops("reference", CPU)
    assert "silu_mul: off by" in caplog.text
    assert "rms_norm" not in caplog.text


@pytest.mark.gpu
def test_auto_takes_triton_on_a_gpu():
    assert select_ops("auto", CUDA).name == "triton"
    ops = select_ops("auto", CUDA, batch_invariant=True)
    assert unwrapped(ops.linear) is triton_linear


@pytest.mark.slow
def test_invariant_ops_that_are_wrong_are_an_error_for_nothing_else_has_their_bits():
    ops = select_ops("triton", CPU, batch_invariant=True)
    assert _require_right(ops, CPU) is ops
    twisted = replace(ops, linear=lambda *arguments: 1.02 * reference.linear(*arguments))
    with pytest.raises(
        ValueError, match=r"no others give .* same bits .* all the same: linear: off"
    ):
        _require_right(twisted, CPU)


def test_batch_invariance_is_the_compiled_ops_of_the_device():
    ops = select_ops("triton", CUDA, batch_invariant=True)
    assert ops.name == "triton"
    linear, attention = (unwrapped(op) for op in (ops.linear, ops.paged_attention))
    assert linear is triton_linear
    assert attention.keywords == {"batch_invariant": True}
    for device, needed in ((CPU, "cpu"), (CUDA, "triton")):
        with pytest.raises(ValueError, match=f"batch_invariant=True needs kernels='{needed}'"):
            select_ops("reference", device, batch_invariant=True)


@pytest.mark.slow
def test_on_a_cpu_triton_needs_its_interpreter_from_the_start():
    code = (
        "import os, sys, torch\n"
        "from toolkit.kernels import select_ops\n"
        "print('triton' in sys.modules)\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        select_ops('triton', torch.device('cpu'))\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
        "    os.environ['TRITON_INTERPRET'] = '1'\n"  # too late
    )
    is_imported, first, second = run(code).splitlines()
    assert is_imported == "False"
    assert "set TRITON_INTERPRET=1 before Python starts" in first
    assert second == first


@pytest.mark.slow
def test_without_the_package_triton_says_so():
    code = (
        "import sys, torch\n"
        "sys.modules['triton'] = None\n"
        "from toolkit.kernels import select_ops\n"
        "print(select_ops('auto', torch.device('cuda')).name)\n"
        "try:\n"
        "    select_ops('triton', torch.device('cuda'))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    name, refusal = run(code).splitlines()
    assert name == "reference"
    assert "need the package triton" in refusal
