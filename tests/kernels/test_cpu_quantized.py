"""Linears with 8- and 4-bit weights on the CPU: error bounds against float64, at every level."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.kernels.numerics import normal
from toolkit.kernels.cpu.build import CompileError, compile_library
from toolkit.kernels.cpu.levels import LEVELS, Level, cpu_flags
from toolkit.kernels.cpu.library import Library
from toolkit.kernels.cpu.quantized import QuantizedLinear, pack_int4, pack_int8

Pack = Callable[..., QuantizedLinear]
PACKS = (pack_int8, pack_int4)
# out, in: one channel, less than a group, not whole groups, blocks or tiles.
SHAPES = ((1, 31), (7, 64), (33, 100), (48, 257), (64, 768))
ROWS = (1, 2, 3, 5, 6, 8, 9, 11, 12, 16, 17, 31, 33, 70)
# Half a unit in the last place, relative.
ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@pytest.fixture(scope="session", params=LEVELS, ids=lambda level: level.name)
def library(request: pytest.FixtureRequest) -> Library:
    level: Level = request.param
    if not level.cpu_flags <= cpu_flags():
        pytest.skip(f"this machine has no {level.name}")
    try:
        path = compile_library(level)
    except CompileError as error:
        pytest.skip(f"cannot compile: {error}")
    loaded = Library(path)
    loaded.set_num_threads(2)
    return loaded


def activation_step(x: Tensor, path: str) -> Tensor:
    """The rounding error of each activation at most, [rows, in]."""
    levels = 32512 if "16-bit" in path else 127
    magnitude = x.double().abs()
    if "groups" not in path:
        return (magnitude.amax(dim=1, keepdim=True) / levels / 2).expand_as(magnitude)
    padded = torch.nn.functional.pad(magnitude, (0, -x.shape[1] % 32))
    steps = padded.view(len(x), -1, 32).amax(dim=2) / levels / 2
    return steps.repeat_interleave(32, dim=1)[:, : x.shape[1]]


def error_bound(linear: QuantizedLinear, dense: Tensor, x: Tensor, expected: Tensor) -> Tensor:
    path = linear.path(len(x), x.dtype)
    magnitude = x.double().abs() @ dense.abs().T
    bound = activation_step(x, path) @ dense.abs().T  # activations rounded
    if "as int8" in path:
        # Each weight is moved by half a step of its channel: 8 / 127 of its largest scale.
        _, scales, _ = linear._parts
        steps = scales.double().abs().amax(dim=1).flatten()[: len(dense)] * 8 / 127
        # A ratio of scales is cut to 1/2048, times at most 8.
        bound += x.double().abs().sum(dim=1, keepdim=True) * steps * (0.5 + 8 / 2048)
        bound *= 1.01  # the products of both errors
    # float32: a few roundings, and one a group.
    bound += magnitude * 2.0**-24 * (8 + x.shape[1] / 32)
    return bound + expected.abs() * ROUNDING[x.dtype] + 1e-6


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("pack", PACKS)
def test_errors_are_those_of_rounding_the_activations(
    library: Library, pack: Pack, dtype: torch.dtype
) -> None:
    for seed, (out_features, in_features) in enumerate(SHAPES):
        bias = normal(out_features, seed=seed + 10)
        linear = pack(library, normal(out_features, in_features, seed=seed), bias)
        dense = linear.dense().double()
        for rows in ROWS:
            x = normal(rows, in_features, seed=rows, dtype=dtype)
            # Rows of very different sizes, and one of zeros.
            x *= torch.logspace(-2, 2, rows)[:, None].to(dtype)
            x[rows // 2] = 0
            expected = x.double() @ dense.T + bias.double()
            for maker in (linear, linear.invariant()):
                error = (maker(x).double() - expected).abs()
                assert (error <= error_bound(maker, dense, x, expected)).all(), (rows, x.shape)


@pytest.mark.parametrize("pack", PACKS)
def test_eight_bit_activations_are_within_their_step(library: Library, pack: Pack) -> None:
    linear = pack(library, normal(40, 96, seed=0), None, exact_rows=0)
    dense = linear.dense().double()
    for rows in ROWS:
        x = normal(rows, 96, seed=rows, dtype=torch.bfloat16)
        assert "8-bit activations" in linear.path(rows)
        expected = x.double() @ dense.T
        error = (linear(x).double() - expected).abs()
        assert (error <= error_bound(linear, dense, x, expected)).all()


@pytest.mark.parametrize("exact_rows", [0, 1000])
@pytest.mark.parametrize("pack", PACKS)
def test_within_a_path_a_row_has_the_same_bits_in_any_batch(
    library: Library, pack: Pack, exact_rows: int
) -> None:
    linear = pack(library, normal(50, 130, seed=0), normal(50, seed=1), exact_rows=exact_rows)
    x = normal(300, 130, seed=2, dtype=torch.bfloat16)
    by_path: dict[str, Tensor] = {}
    for rows in (300, *ROWS):
        part, later = linear(x[:rows]), linear(x[1 : rows + 1])
        seen = by_path.setdefault(linear.path(rows), part)
        both = min(len(part), len(seen))
        assert part[:both].equal(seen[:both])
        assert later[: both - 1].equal(part[1:both])


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("pack", PACKS)
def test_the_invariant_map_gives_the_same_bits_at_every_row_count(
    library: Library, pack: Pack, dtype: torch.dtype
) -> None:
    linear = pack(library, normal(50, 130, seed=0), normal(50, seed=1)).invariant()
    x = normal(300, 130, seed=2, dtype=dtype)
    whole = linear(x)
    for rows in ROWS:
        assert linear.path(rows, dtype) == linear.path(300, dtype)
        assert linear(x[:rows]).equal(whole[:rows])
        assert linear(x[300 - rows :]).equal(whole[300 - rows :])


@pytest.mark.parametrize("pack", PACKS)
def test_threads_do_not_change_a_result(library: Library, pack: Pack) -> None:
    linear = pack(library, normal(640, 512, seed=0), None)
    for rows in (1, 7, 40, 200):
        x = normal(rows, 512, seed=rows, dtype=torch.bfloat16)
        two = linear(x)
        library.set_num_threads(1)
        one = linear(x)
        library.set_num_threads(2)
        assert one.equal(two)


@pytest.mark.parametrize("pack", PACKS)
def test_rows_may_lie_apart(library: Library, pack: Pack) -> None:
    linear = pack(library, normal(20, 64, seed=0), None)
    wide = normal(9, 200, seed=1)
    assert linear(wide[:, 30:94]).equal(linear(wide[:, 30:94].contiguous()))
    columns = normal(64, 9, seed=2).T
    assert linear(columns).equal(linear(columns.contiguous()))


@pytest.mark.parametrize("pack", PACKS)
def test_no_rows_give_no_rows(library: Library, pack: Pack) -> None:
    assert pack(library, normal(20, 64, seed=0), None)(torch.empty(0, 64)).shape == (0, 20)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("pack", PACKS)
def test_a_row_that_is_not_finite_gives_nan_and_spoils_no_other(
    library: Library, pack: Pack, bad: float
) -> None:
    linear = pack(library, normal(20, 64, seed=0), None)
    for rows in (2, 20, 200):
        x = normal(rows, 64, seed=rows, dtype=torch.bfloat16)
        clean = linear(x)
        x[1, 5] = bad
        spoilt = linear(x)
        assert spoilt[1].isnan().all()
        assert spoilt[0].equal(clean[0])
        assert spoilt[2:].equal(clean[2:])


def test_eight_bits_keep_each_weight_within_half_a_step(library: Library) -> None:
    weight = normal(33, 100, seed=0)
    weight[3] = 0
    dense = pack_int8(library, weight, None).dense()
    steps = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((dense - weight).abs() <= steps * 0.5001).all()


def test_four_bits_keep_normal_weights_within_nine_per_cent(library: Library) -> None:
    weight = normal(64, 256, seed=0)
    weight[3] = 0
    dense = pack_int4(library, weight, None).dense()
    assert (dense - weight).norm() < 0.09 * weight.norm()
    assert (dense[3] == 0).all()


def test_a_matrix_that_is_representable_comes_back(library: Library) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(-8, 8, (32, 64), generator=generator).float()
    numbers[:, ::32] = -8  # each group's largest number
    assert pack_int4(library, numbers * 0.25, None).dense().equal(numbers * 0.25)
    numbers[:, 0] = 127
    assert pack_int8(library, numbers * 0.5, None).dense().equal(numbers * 0.5)


def test_sizes_are_half_and_twenty_nine_per_cent_of_bfloat16(library: Library) -> None:
    weight = normal(768, 2048, seed=0, dtype=torch.bfloat16)
    eight, four = pack_int8(library, weight, None), pack_int4(library, weight, None)
    assert eight.nbytes < 0.502 * weight.nbytes
    assert four.nbytes < 0.29 * weight.nbytes
    assert eight.dense().dtype == torch.bfloat16
    assert repr(four) == "int4(768 x 2048)"


def test_too_many_inputs_for_whole_sums_are_refused(library: Library) -> None:
    with pytest.raises(ValueError, match="65,536"):
        pack_int8(library, torch.zeros(1, 65_537), None)


def test_onednn_works_between_calls(library: Library) -> None:
    # Both configure AMX's tiles, which are a state of the thread.
    linear = pack_int8(library, normal(64, 256, seed=0), None)
    x = normal(64, 256, seed=1, dtype=torch.bfloat16)
    weight = normal(48, 256, seed=2, dtype=torch.bfloat16)
    ours, theirs = linear(x), torch.nn.functional.linear(x, weight)
    for _ in range(5):
        assert linear(x).equal(ours)
        assert torch.nn.functional.linear(x, weight).equal(theirs)
