"""Linear maps with the weight laid out anew: right, and where asked for the same in every batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.kernels.cpu_levels import library_of
from toolkit.kernels.cpu.levels import LEVELS, cpu_flags
from toolkit.kernels.cpu.library import Library
from toolkit.kernels.cpu.linears import InvariantLinear, TileLinear, _pieces, pack

# float32 sums of products of numbers of about 1; a bfloat16 result is rounded once more.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2**-8}
SIZES = [(64, 192), (96, 33), (32, 7), (768, 256), (48, 20)]
ACTIVATIONS = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


@pytest.fixture(scope="module")
def library() -> Library:
    return library_of("plain")


@pytest.fixture(scope="module")
def tiles() -> Library:
    if not LEVELS[0].cpu_flags <= cpu_flags():
        pytest.skip("this processor has no AMX")
    library = library_of("amx")
    if not library.has_tiles:
        pytest.skip("the system does not grant AMX")
    return library


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(dtype)


def assert_close(out: torch.Tensor, exact: torch.Tensor) -> None:
    error = (out.double() - exact).abs().max() / exact.abs().max()
    assert out.dtype in BOUNDS
    assert error < BOUNDS[out.dtype]


@pytest.mark.parametrize(("num_in", "num_out"), SIZES)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_packed_map_is_the_plain_one(
    library: Library, num_in: int, num_out: int, with_bias: bool, invariant: bool, dtype
):
    weight, bias = numbers(num_out, num_in, dtype=dtype), numbers(num_out, dtype=dtype)
    try:
        packed = pack(
            weight, bias if with_bias else None, library=library, batch_invariant=invariant
        )
    except NotImplementedError as error:
        pytest.skip(str(error))
    if packed is None:
        pytest.skip(f"oneDNN has no {dtype} on this processor")
    assert packed.dense().equal(weight)
    assert packed.nbytes >= weight.nbytes
    for rows in (0, 1, 2, 31, 32, 33, 70):
        x = numbers(rows, num_in, dtype=dtype)
        out = packed(x)
        assert out.shape == (rows, num_out)
        if rows:
            exact = functional.linear(x.double(), weight.double(), bias.double() * with_bias)
            assert_close(out, exact)


@pytest.mark.parametrize(("num_in", "num_out"), [(64, 192), (96, 33), (32, 7), (768, 256)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_tiles_compute_the_plain_map(tiles: Library, num_in: int, num_out: int, with_bias: bool):
    dtype = torch.bfloat16
    weight, bias = numbers(num_out, num_in, dtype=dtype), numbers(num_out, dtype=dtype)
    packed = pack(weight, bias if with_bias else None, library=tiles)
    assert isinstance(packed, TileLinear)
    assert packed.dense().equal(weight)
    wide = numbers(70, num_in + 32, dtype=dtype)
    for rows in (0, 1, 16, 17, 32, 33, 70):
        x = wide[:rows, :num_in]  # rows further apart than they are long
        out = packed(x)
        assert out.shape == (rows, num_out)
        if rows:
            exact = functional.linear(x.double(), weight.double(), bias.double() * with_bias)
            assert_close(out, exact)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_tiles_gate_as_they_multiply(tiles: Library, name: str, with_bias: bool):
    dtype = torch.bfloat16
    weight, bias = numbers(192, 64, dtype=dtype), numbers(192, dtype=dtype)
    packed = pack(weight, bias if with_bias else None, library=tiles, gate=name)
    assert packed is not None
    assert packed.is_gated
    assert packed.dense().equal(weight)
    for rows in (1, 37):
        x = numbers(rows, 64, dtype=dtype)
        both = functional.linear(x.double(), weight.double(), bias.double() * with_bias)
        gate, up = both.chunk(2, dim=-1)
        assert_close(packed(x), ACTIVATIONS[name](gate) * up)


@pytest.mark.parametrize(("num_in", "num_out"), [(768, 256), (256, 1000)])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("which", ["library", "tiles"])
def test_a_rows_bits_do_not_depend_on_its_batch(
    request: pytest.FixtureRequest, which: str, num_in: int, num_out: int, dtype
):
    library = request.getfixturevalue(which)
    try:
        packed = pack(
            numbers(num_out, num_in, dtype=dtype), None, library=library, batch_invariant=True
        )
    except NotImplementedError as error:
        pytest.skip(str(error))
    x = numbers(150, num_in, dtype=dtype)
    whole = packed(x)
    for rows in (1, 2, 3, 5, 16, 17, 31, 33, 64, 65, 100, 149):
        for start in (0, 1, 150 - rows):
            assert packed(x[start : start + rows]).equal(whole[start : start + rows])


def test_a_batch_is_cut_into_counts_that_agree():
    counts = (32, 8, 2)
    for rows in range(100):
        pieces = _pieces(rows, counts)
        assert set(pieces) <= set(counts)
        # Only the last piece is filled up.
        assert sum(pieces[:-1]) < max(rows, 1) <= max(sum(pieces), 1)


def test_counts_that_sum_otherwise_are_not_used(monkeypatch: pytest.MonkeyPatch):
    """A map whose result depends on the number of rows, or on a row's place, is found out."""

    class Odd(InvariantLinear):
        def _whole(self, x: torch.Tensor) -> torch.Tensor:
            out = super()._whole(x)
            if len(x) >= 96:
                out = out + 1e-3
            if len(x) == 12:
                out[3:] += 1e-3
            return out

    weight = numbers(24, 40)
    odd = Odd(torch.ops.mkldnn._reorder_linear_weight(weight, 16), None)
    assert max(odd.row_counts) == 64
    assert 12 not in odd.row_counts
