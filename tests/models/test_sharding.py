"""The parts of a decoder compute together what the whole one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.checkpoints import CONFIGS, PROMPTS, llama, write_checkpoint
from tests.models.paging import CPU, assert_same_logits, load, run
from tests.models.shards import load_parts, run_parts
from toolkit.errors import CheckpointError, InvalidConfig
from toolkit.kernels import select_ops
from toolkit.models import decoder_spec, num_parameters
from toolkit.models.sharding import Shard, refuse_indivisible

# Three key heads, and two query heads each, are three parts and not two.
SIZES = {name: 3 if name == "falcon, one norm" else 2 for name in CONFIGS}
SIZES |= {"mpt": 2, "bloom, 4 heads": 4, "falcon, alibi": 8}
# An inner width of 56 is no multiple of 3.
WIDTHS = {"falcon, one norm": {"ffn_hidden_size": 54}}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_parts_of_every_family_compute_what_the_whole_does(name: str, tmp_path: Path):
    config = CONFIGS[name]
    for field, width in WIDTHS.get(name, {}).items():
        config = type(config)(**(config.to_dict() | {field: width}))
    write_checkpoint(tmp_path, config)
    whole = run(load(tmp_path), PROMPTS, chunk=5)
    parts = run_parts(load_parts(tmp_path, SIZES[name]), PROMPTS, chunk=5)
    assert_same_logits(parts, whole, atol=2e-5)


@pytest.mark.parametrize("size", [3, 6])
def test_key_heads_are_repeated_where_there_are_fewer_than_parts(size: int, tmp_path: Path):
    config = llama(num_key_value_heads=1, intermediate_size=54)
    write_checkpoint(tmp_path, config)
    whole = run(load(tmp_path), PROMPTS, chunk=5)
    parts = load_parts(tmp_path, size)
    assert [part.spec.attention.num_kv_heads for part in parts] == [1] * size
    assert_same_logits(run_parts(parts, PROMPTS, chunk=5), whole, atol=2e-5)


def test_the_compiled_kernels_compute_a_part_as_the_reference_does(tmp_path: Path):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    expected = run_parts(load_parts(tmp_path, 2), PROMPTS, chunk=5)
    parts = load_parts(tmp_path, 2, kernels="cpu")
    assert all(part.decoder.fused is None for part in parts)
    assert_same_logits(run_parts(parts, PROMPTS, chunk=5), expected, atol=2e-5)


def test_parts_hold_a_share_of_the_parameters():
    spec, ops = decoder_spec(llama(vocab_size=4096)), select_ops("reference", CPU)
    whole = num_parameters(spec, ops)
    part = num_parameters(spec, ops, Shard(0, 2, lambda x: x))
    norms = 5 * spec.hidden_size
    assert part - norms == (whole - norms) / 2


def test_a_tensor_of_the_wrong_shape_is_refused_though_a_part_would_fit(tmp_path: Path):
    write_checkpoint(tmp_path, llama())
    (tmp_path / "config.json").write_text(
        (tmp_path / "config.json").read_text().replace('"vocab_size": 97', '"vocab_size": 90')
    )
    with pytest.raises(CheckpointError, match=r"shape \(97, 48\)"):
        load_parts(tmp_path, 2)


@pytest.mark.parametrize(
    ("changes", "size", "why"),
    [
        ({}, 4, r"6 attention heads.*choose 1 or 2$"),
        ({"num_key_value_heads": 3}, 2, r"3 key and value heads"),
        ({"intermediate_size": 55}, 2, r"width 55.*leave it at 1"),
        ({"intermediate_size": 54, "num_key_value_heads": 1}, 4, r"choose 1, 2, 3 or 6$"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_what_can(changes: dict, size: int, why: str):
    with pytest.raises(InvalidConfig, match=why):
        refuse_indivisible(decoder_spec(llama(**changes)), size)


def test_a_head_that_differs_from_a_tied_embedding_is_noticed_in_parts_too(tmp_path: Path):
    write_checkpoint(tmp_path, llama(tie_word_embeddings=True))
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file)
    assert len(load_parts(tmp_path, 2)) == 2
    save_file(tensors | {"lm_head.weight": torch.randn(97, 48)}, file)
    with pytest.raises(CheckpointError, match="another matrix"):
        load_parts(tmp_path, 2)
