"""Every op against an independent computation in float64, for every implementation there is."""

from __future__ import annotations

import math

import pytest
import torch

from tests.kernels.numerics import CPU, DTYPES, assert_close, normal
from toolkit.kernels import Ops, select_ops


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 123), (1, 1), (0, 7), (3, 2, 64)])
def test_rms_norm_divides_by_the_root_mean_square(ops: Ops, dtype: torch.dtype, shape: tuple):
    x, weight = normal(*shape, seed=0, dtype=dtype), normal(shape[-1], seed=1, dtype=dtype)
    wide = x.double()
    expected = weight.double() * wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    assert_close(ops.rms_norm(x, weight, 1e-5), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_rounds_like_transformers(ops: Ops, dtype: torch.dtype):
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    theirs = LlamaRMSNorm(123, eps=1e-6).to(dtype).requires_grad_(False)
    theirs.weight.copy_(normal(123, seed=3))
    x = 3 * normal(17, 123, seed=2, dtype=dtype)
    assert torch.equal(ops.rms_norm(x, theirs.weight, 1e-6), theirs(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 123), (0, 8)])
def test_layer_norm_centres_and_scales(
    ops: Ops, dtype: torch.dtype, has_bias: bool, shape: tuple[int, int]
):
    x, weight = normal(*shape, seed=0, dtype=dtype), normal(shape[-1], seed=1, dtype=dtype)
    bias = normal(shape[-1], seed=2, dtype=dtype) if has_bias else None
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    expected = weight.double() * centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    assert_close(
        ops.layer_norm(x, weight, bias, 1e-5), expected + (bias.double() if bias is not None else 0)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fused_norm_is_the_sum_and_its_norm(ops: Ops, dtype: torch.dtype):
    x, residual = normal(9, 33, seed=0, dtype=dtype), normal(9, 33, seed=1, dtype=dtype)
    weight, bias = normal(33, seed=2, dtype=dtype), normal(33, seed=3, dtype=dtype)
    for normed, total, alone in (
        (*ops.add_rms_norm(x, residual, weight, 1e-5), ops.rms_norm(residual + x, weight, 1e-5)),
        (
            *ops.add_layer_norm(x, residual, weight, bias, 1e-5),
            ops.layer_norm(residual + x, weight, bias, 1e-5),
        ),
    ):
        assert torch.equal(total, residual + x)
        assert_close(normed, alone.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fused_norm_leaves_its_inputs_alone(ops: Ops, dtype: torch.dtype):
    x, residual, weight = (normal(4, 8, seed=i, dtype=dtype) for i in range(3))
    before = x.clone(), residual.clone()
    ops.add_rms_norm(x, residual, weight[0], 1e-5)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_tokens", "width"), [(5, 37), (0, 4), (1, 1)])
def test_gated_activations_multiply_by_the_second_half(
    ops: Ops, dtype: torch.dtype, num_tokens: int, width: int
):
    gate_up = normal(num_tokens, 2 * width, seed=0, dtype=dtype)
    gate, up = gate_up.double().chunk(2, dim=-1)
    assert_close(ops.silu_mul(gate_up), gate / (1 + torch.exp(-gate)) * up)
    exact = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    assert_close(ops.gelu_mul(gate_up, "none"), exact * up)
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    assert_close(ops.gelu_mul(gate_up, "tanh"), 0.5 * gate * (1 + torch.tanh(inner)) * up)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("num_tokens", [0, 1, 7])
def test_linear_multiplies_by_the_transposed_weight(
    ops: Ops, dtype: torch.dtype, has_bias: bool, num_tokens: int
):
    x = normal(num_tokens, 19, seed=0, dtype=dtype)
    weight = normal(11, 19, seed=1, dtype=dtype) / 19**0.5
    bias = normal(11, seed=2, dtype=dtype) if has_bias else None
    expected = torch.einsum("ti,oi->to", x.double(), weight.double())
    assert_close(ops.linear(x, weight, bias), expected + (bias.double() if bias is not None else 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_tokens", "rotary_dim"), [(7, 16), (7, 6), (1, 2), (0, 16)])
def test_rotary_turns_pairs_and_passes_the_rest(
    ops: Ops, dtype: torch.dtype, num_tokens: int, rotary_dim: int
):
    query = normal(num_tokens, 6, 16, seed=0, dtype=dtype)
    key = normal(num_tokens, 2, 16, seed=1, dtype=dtype)
    angles = normal(num_tokens, rotary_dim // 2, seed=2)
    turned = ops.rotary(query, key, angles.cos(), angles.sin())
    turn = torch.polar(torch.ones_like(angles.double()), angles.double()).unsqueeze(1)
    for before, after in zip((query, key), turned, strict=True):
        first, second, rest = before.double().split(
            (rotary_dim // 2, rotary_dim // 2, 16 - rotary_dim), dim=-1
        )
        pairs = torch.complex(first, second) * turn
        assert_close(after, torch.cat((pairs.real, pairs.imag, rest), dim=-1))


def test_rotary_accepts_heads_that_lie_apart_in_memory(ops: Ops):
    fused = normal(5, 4, 8, seed=0)
    angles = normal(5, 4, seed=1)
    query, key = fused.split((3, 1), dim=1)
    apart = ops.rotary(query, key, angles.cos(), angles.sin())
    together = ops.rotary(query.contiguous(), key.contiguous(), angles.cos(), angles.sin())
    assert torch.equal(apart[0], together[0])
    assert torch.equal(apart[1], together[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slots", [[], [0], [11, 3, 4, 9]])
def test_write_kv_fills_exactly_its_slots(ops: Ops, dtype: torch.dtype, slots: list[int]):
    key_cache, value_cache = (normal(3, 2, 4, 5, seed=i, dtype=dtype) for i in range(2))
    key, value = (normal(len(slots), 2, 5, seed=2 + i, dtype=dtype) for i in range(2))
    expected = key_cache.clone(), value_cache.clone()
    for row, slot in enumerate(slots):
        expected[0][slot // 4, :, slot % 4] = key[row]
        expected[1][slot // 4, :, slot % 4] = value[row]
    ops.write_kv(key, value, key_cache, value_cache, torch.tensor(slots, dtype=torch.int64))
    assert torch.equal(key_cache, expected[0])
    assert torch.equal(value_cache, expected[1])


def test_auto_is_an_implementation_of_this_machine():
    assert select_ops("auto", CPU).name in ("reference", "cpu")


def test_an_implementation_that_is_not_here_names_those_that_are():
    with pytest.raises(ValueError, match=r"'cuda-graph-magic'.*'reference'"):
        select_ops("cuda-graph-magic", CPU)
