"""The decoder computes what transformers computes, however a prompt is cut into steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.checkpoints import (
    CONFIGS,
    PROMPTS,
    expected_logits,
    llama,
    longrope_llama,
    mpt,
    qwen3,
    scaled_llama,
    write_checkpoint,
)
from tests.models.paging import CPU, PagedRun, assert_same_logits, load, run
from toolkit.kernels import select_ops
from toolkit.models import Decoder, decoder_spec, random_decoder

# Every family, and on Llama and its kin what many of them share.
CONFIGS = CONFIGS | {
    "llama, no groups": llama(num_key_value_heads=6),
    "llama, one key head": llama(num_key_value_heads=1),
    "llama, tied": llama(tie_word_embeddings=True),
    "llama, biases": llama(attention_bias=True, mlp_bias=True),
    "llama, wide heads": llama(head_dim=20),
    "llama, gelu": llama(hidden_act="gelu_pytorch_tanh"),
    "rope linear": scaled_llama("linear", factor=4.0),
    "rope linear, as configs of 2023 spell it": llama(
        rope_scaling={"type": "linear", "factor": 4.0}, rope_theta=5000.0
    ),
    "rope dynamic": scaled_llama("dynamic", factor=4.0),
    "rope yarn": scaled_llama("yarn", factor=4.0, original_max_position_embeddings=16),
    "rope yarn, own magnitude": scaled_llama(
        "yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=0.7
    ),
    "rope llama3": scaled_llama(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
    ),
    "rope longrope": longrope_llama(),
    "qwen3, tied": qwen3(tie_word_embeddings=True),
    "qwen3, windows": qwen3(use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "mpt, 12 heads": mpt(n_heads=12),
    "mpt, clipped and scaled": mpt(attention={"clip_qkv": 0.5, "softmax_scale": 0.2}),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Decoder, list[Tensor]]:
    """A decoder, and transformers' logits for PROMPTS."""
    folder = write_checkpoint(tmp_path_factory.mktemp("model"), request.param)
    return load(folder), expected_logits(folder, PROMPTS)


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(100, id="whole"),
        pytest.param(7, id="chunks", marks=pytest.mark.slow),
        pytest.param(1, id="token by token", marks=pytest.mark.slow),
    ],
)
def test_logits_equal_transformers(checkpoint: tuple[Decoder, list[Tensor]], chunk: int):
    decoder, expected = checkpoint
    assert_same_logits(run(decoder, PROMPTS, chunk=chunk), expected, atol=1e-4)


def test_chunks_mix_with_single_tokens(checkpoint: tuple[Decoder, list[Tensor]]):
    decoder, expected = checkpoint
    steps = PagedRun(decoder, PROMPTS)
    for num_tokens in ([9, 1, 1, 0], [1, 0, 17, 1], [1, 0, 1, 6], [2, 0, 11, 1]):
        steps.step(num_tokens)
    assert_same_logits(steps.finish(chunk=1), expected, atol=1e-4)


def long_prompt(length: int) -> list[int]:
    return [(5 * i + i * i) % 97 for i in range(length)]


@pytest.mark.parametrize("chunk", [100, 1])
def test_dynamic_rope_equals_transformers_at_the_length_it_was_built_for(
    tmp_path: Path, chunk: int
):
    folder = write_checkpoint(tmp_path, scaled_llama("dynamic", factor=4.0))
    prompts = [long_prompt(90)]
    decoder = load(folder, max_model_len=90)
    assert decoder.spec.max_model_len == 90
    expected = expected_logits(folder, prompts)
    assert_same_logits(run(decoder, prompts, chunk=chunk), expected, atol=1e-4)


@pytest.mark.parametrize(("max_model_len", "length"), [(16, 16), (40, 40), (40, 17)])
def test_longrope_takes_the_factors_of_the_longest_sequence(
    tmp_path: Path, max_model_len: int, length: int
):
    config = scaled_llama(
        "longrope",
        factor=4.0,
        short_factor=[1.0, 1.1, 1.2, 1.3],
        long_factor=[1.0, 2.0, 3.0, 4.0],
        original_max_position_embeddings=16,
    )
    folder = write_checkpoint(tmp_path, config)
    prompts = [long_prompt(length)]
    decoder = load(folder, max_model_len=max_model_len)
    assert_same_logits(run(decoder, prompts, chunk=5), expected_logits(folder, prompts), atol=1e-4)


def test_bfloat16_stays_near_float32(tmp_path: Path):
    folder = write_checkpoint(tmp_path, llama())
    narrow = load(folder, dtype="bfloat16")
    assert narrow.dtype is torch.bfloat16
    logits = run(narrow, PROMPTS, chunk=7)
    assert logits[0].dtype is torch.float32
    # Eight bits of mantissa through two layers, on logits of about 10.
    assert_same_logits(logits, expected_logits(folder, PROMPTS), atol=0.5)


def test_a_random_decoder_is_a_function_of_its_seed():
    spec = decoder_spec(llama())
    options = {"dtype": torch.float32, "device": CPU, "ops": select_ops("auto", CPU)}
    first, same, other = (random_decoder(spec, seed=seed, **options) for seed in (1, 1, 2))
    logits = [run(decoder, PROMPTS, chunk=100)[0] for decoder in (first, same, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])
    assert 0.1 < logits[0].std() < 10
