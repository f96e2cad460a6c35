"""Shapes of models and sheets of devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import InvalidConfig
from toolkit.simulate import DEVICES, SHAPES, Device, resolve_device, resolve_shape

GIB = 1024**3


@pytest.mark.parametrize(
    ("name", "billions", "kv_kib"),
    [
        ("opt-13b", 12.85, 800),
        ("opt-66b", 65.7, 2_304),
        ("opt-175b", 174.6, 4_608),
        ("llama-2-7b", 6.74, 512),
        ("llama-3-8b", 8.03, 128),
        ("llama-3-70b", 70.6, 320),
        ("mistral-7b", 7.24, 128),
        ("yi-34b", 34.4, 240),
        ("qwen3-0.6b", 0.596, 112),
        ("qwen3-8b", 8.19, 144),
    ],
)
def test_presets_have_as_many_parameters_as_their_makers_say(
    name: str, billions: float, kv_kib: int
):
    shape = resolve_shape(name)
    assert shape.num_parameters / 1e9 == pytest.approx(billions, rel=0.005)
    assert shape.kv_bytes_per_token == 1024 * kv_kib


def write(folder: Path, **values: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}


def test_a_folder_gives_the_shape_of_its_config(tmp_path: Path):
    shape = resolve_shape(write(tmp_path, **LLAMA))
    preset = SHAPES["llama-3-8b"]
    assert shape.num_parameters == preset.num_parameters
    assert shape.kv_bytes_per_token == preset.kv_bytes_per_token
    assert shape.name == tmp_path.name


def test_families_with_names_of_their_own(tmp_path: Path):
    gpt2 = resolve_shape(
        write(
            tmp_path,
            model_type="gpt2",
            n_layer=12,
            n_embd=768,
            n_head=12,
            vocab_size=50257,
            n_positions=1024,
            dtype="float32",
        )
    )
    assert (gpt2.intermediate_size, gpt2.is_gated, gpt2.dtype_bytes) == (3072, False, 4)
    assert gpt2.num_parameters / 1e6 == pytest.approx(123.5, rel=0.01)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({**LLAMA, "hidden_size": None}, "has no hidden_size or n_embd"),
        ({**LLAMA, "vocab_size": "many"}, "has no vocab_size"),
        ({**LLAMA, "num_local_experts": 8}, "mixture of experts"),
    ],
)
def test_a_config_of_no_use_says_why(tmp_path: Path, values: dict[str, Any], says: str):
    with pytest.raises(InvalidConfig, match=says):
        resolve_shape(write(tmp_path, **values))


def test_an_unknown_model_or_device_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(InvalidConfig, match="opt-13b"):
        resolve_shape("gpt-9")
    with pytest.raises(InvalidConfig, match="opt-13b"):
        resolve_shape(tmp_path)
    with pytest.raises(InvalidConfig, match="A100-40GB"):
        resolve_device("abacus")


def test_names_may_be_written_in_any_case():
    assert resolve_shape("OPT-13B") is SHAPES["opt-13b"]
    assert resolve_device("a100-40gb") is DEVICES["a100-40gb"]


@pytest.mark.parametrize(
    "wrong",
    [{"memory_gib": 0}, {"tflops": -1}, {"bandwidth_efficiency": 1.1}, {"host_s": -1e-3}],
)
def test_a_device_of_no_sense_is_refused(wrong: dict[str, Any]):
    values = {"memory_gib": 80, "bandwidth_gbps": 2_000, "tflops": 300, "host_s": 0.0}
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        Device(name="mine", origin="a guess", **{**values, **wrong})
