"""Packed experts are read as transformers unpacks them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from tests.models.checkpoints import FAMILIES, PROMPTS, write_checkpoint
from tests.models.paging import assert_same_logits, load, run
from toolkit.errors import CheckpointError
from toolkit.models.mxfp4 import unpack_mxfp4


def packed(*shape: int, seed: int, scales: tuple[int, int] = (110, 140)) -> tuple[Tensor, Tensor]:
    """Random blocks [*shape, groups, 16] and scales [*shape, groups]."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
    return blocks, torch.randint(*scales, shape, generator=generator, dtype=torch.uint8)


def test_values_are_those_of_transformers():
    blocks, scales = packed(3, 10, 2, seed=0)
    ((name, ours),) = unpack_mxfp4([("w_blocks", blocks), ("w_scales", scales)])
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert name == "w"
    assert ours.shape == (3, 64, 10)
    assert torch.equal(ours.float(), theirs)


def test_halves_may_come_in_any_order_with_others_between():
    blocks, scales = packed(1, 2, 1, seed=1)
    other = torch.zeros(2)
    names = [n for n, _ in unpack_mxfp4([("w_scales", scales), ("x", other), ("w_blocks", blocks)])]
    assert names == ["x", "w"]


def gpt_oss(folder: Path) -> Path:
    """A checkpoint whose experts are 64 wide, so that they can be packed."""
    config = type(FAMILIES["gpt_oss"])(
        **(FAMILIES["gpt_oss"].to_dict() | {"hidden_size": 64, "intermediate_size": 32})
    )
    return write_checkpoint(folder, config)


def pack_experts(folder: Path) -> None:
    """Replace the experts by random packed ones, as OpenAI's files have them."""
    tensors = load_file(folder / "model.safetensors")
    for seed, name in enumerate([n for n in tensors if n.endswith("_proj") and ".experts." in n]):
        experts, rows, columns = tensors.pop(name).shape
        blocks, scales = packed(experts, columns, rows // 32, seed=seed, scales=(122, 126))
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_packed_checkpoint_computes_what_its_unpacked_twin_does(tmp_path: Path):
    folder = gpt_oss(tmp_path / "packed")
    pack_experts(folder)
    twin = tmp_path / "plain"
    twin.mkdir()
    unpacked = dict(unpack_mxfp4(load_file(folder / "model.safetensors").items()))
    save_file(
        {name: tensor.float().contiguous() for name, tensor in unpacked.items()},
        twin / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (twin / "config.json").write_text(json.dumps(config))
    ours, expected = (run(load(path), PROMPTS, chunk=9) for path in (folder, twin))
    assert_same_logits(ours, expected, atol=1e-6)


def test_a_missing_half_is_an_error_that_names_it(tmp_path: Path):
    folder = gpt_oss(tmp_path)
    pack_experts(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.down_proj_scales"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.experts\.down_proj_blocks"):
        load(folder)
