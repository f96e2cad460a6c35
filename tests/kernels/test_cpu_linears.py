"""Linear maps with the weight laid out anew: right at every level, the same in every batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.kernels.cpu_levels import library_of
from toolkit.kernels.cpu.levels import LEVELS, cpu_flags
from toolkit.kernels.cpu.library import Library
from toolkit.kernels.cpu.linears import OneDnnLinear, PanelLinear

# float32 sums of products of numbers of about 1; 16-bit results are rounded once more.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
# Odd ones, one for AMX's tiles, and one of several parts in the caches.
SIZES = [(64, 192), (96, 33), (33, 7), (48, 20), (800, 256)]
# Of whole blocks and with a rest, and more than stay in the second-level cache.
ROWS = (0, 1, 2, 6, 7, 15, 16, 17, 33, 130)
ACTIVATIONS = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


@pytest.fixture(
    scope="module", params=[level.name for level in LEVELS if level.cpu_flags <= cpu_flags()]
)
def library(request: pytest.FixtureRequest) -> Library:
    return library_of(request.param)


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(dtype)


def assert_close(out: torch.Tensor, exact: torch.Tensor) -> None:
    error = (out.double() - exact).abs().max() / exact.abs().max()
    assert out.dtype in BOUNDS
    assert error < BOUNDS[out.dtype]


@pytest.mark.parametrize(("num_in", "num_out"), SIZES)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_map_in_panels_is_the_plain_one(
    library: Library, num_in: int, num_out: int, with_bias: bool, dtype: torch.dtype
):
    weight, bias = numbers(num_out, num_in, dtype=dtype), numbers(num_out, dtype=dtype)
    packed = PanelLinear(library, weight, bias if with_bias else None)
    assert packed.dense().equal(weight)
    assert packed.nbytes >= weight.nbytes
    wide = numbers(max(ROWS), num_in + 32, dtype=dtype)
    for rows in ROWS:
        x = wide[:rows, :num_in]  # rows further apart than they are long
        out = packed(x)
        assert out.shape == (rows, num_out)
        if rows:
            exact = functional.linear(x.double(), weight.double(), bias.double() * with_bias)
            assert_close(out, exact)


def test_columns_of_a_matrix_are_no_rows(library: Library):
    weight, x = numbers(48, 64), numbers(64, 5).T
    assert_close(PanelLinear(library, weight, None)(x), x.double() @ weight.double().T)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_gated_map_is_the_plain_one_and_the_activation(
    library: Library, name: str, with_bias: bool, dtype: torch.dtype
):
    weight, bias = numbers(192, 64, dtype=dtype), numbers(192, dtype=dtype)
    packed = PanelLinear(library, weight, bias if with_bias else None, gate=name)
    assert packed.is_gated
    assert packed.dense().equal(weight)
    for rows in (1, 37):
        x = numbers(rows, 64, dtype=dtype)
        both = functional.linear(x.double(), weight.double(), bias.double() * with_bias)
        gate, up = both.chunk(2, dim=-1)
        assert_close(packed(x), ACTIVATIONS[name](gate) * up)


@pytest.mark.parametrize(("gate", "num_out"), [("relu", 192), ("silu", 40)])
def test_what_cannot_be_gated_is_left_to_the_caller(library: Library, gate: str, num_out: int):
    """An activation that the C++ lacks, and halves that are no whole vectors."""
    if num_out % (2 * library.width) == 0 and gate == "silu":
        num_out += 2
    weight, x = numbers(num_out, 32), numbers(3, 32)
    packed = PanelLinear(library, weight, None, gate=gate)
    assert not packed.is_gated
    assert_close(packed(x), x.double() @ weight.double().T)


def test_what_a_map_does_not_take_is_an_error(library: Library):
    packed = PanelLinear(library, numbers(48, 64), None)
    with pytest.raises(TypeError, match="bfloat16"):
        packed(numbers(3, 64, dtype=torch.bfloat16))
    for shape in ((3, 7), (2, 3, 64), (64,)):
        with pytest.raises(ValueError, match="64"):
            packed(numbers(*shape))


@pytest.mark.parametrize(("num_in", "num_out"), [(800, 256), (256, 1000)])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_rows_bits_do_not_depend_on_its_batch(
    library: Library, num_in: int, num_out: int, dtype: torch.dtype
):
    packed = PanelLinear(library, numbers(num_out, num_in, dtype=dtype), None)
    x = numbers(150, num_in, dtype=dtype)
    whole = packed(x)
    for rows in (1, 2, 3, 5, 16, 17, 31, 33, 64, 65, 100, 149):
        for start in (0, 1, 150 - rows):
            assert packed(x[start : start + rows]).equal(whole[start : start + rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_onednns_map_is_the_plain_one(dtype: torch.dtype):
    weight, bias = numbers(33, 96, dtype=dtype), numbers(33, dtype=dtype)
    packed = OneDnnLinear.pack(weight, bias)
    if packed is None:
        pytest.skip(f"oneDNN has no {dtype} on this processor")
    assert packed.dense().equal(weight)
    for rows in (0, 1, 70):
        x = numbers(rows, 96, dtype=dtype)
        out = packed(x)
        assert out.shape == (rows, 33)
        if rows:
            assert_close(out, functional.linear(x.double(), weight.double(), bias.double()))
