"""Checkpoints load from every layout, completely or with an error that names the tensors."""

from __future__ import annotations

import json
import pickle
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models.checkpoints import PROMPTS, expected_logits, llama, mpt, write_checkpoint
from tests.models.paging import CPU, assert_same_logits, load, run
from toolkit.errors import CheckpointError, InvalidConfig, ModelError, UnsupportedModel
from toolkit.models import load_generation_defaults, native_dtype, read_config, resolve_files
from toolkit.models.checkpoint import read_tensors, weight_files


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Tensor]]:
    """A checkpoint in one safetensors file, and transformers' logits; tests change copies."""
    folder = write_checkpoint(tmp_path_factory.mktemp("plain"), llama())
    return folder, expected_logits(folder, PROMPTS)


@pytest.fixture
def rewrite(plain: tuple[Path, list[Tensor]], tmp_path: Path) -> Callable[..., Path]:
    """Copy the checkpoint with tensors changed, and config.json's settings updated."""

    def write(
        change: Callable[[dict[str, Tensor]], object] = lambda tensors: None,
        save: Callable[[dict[str, Tensor], Path], object] | None = None,
        **settings: object,
    ) -> Path:
        tensors = load_file(plain[0] / "model.safetensors")
        change(tensors)
        if save is None:
            save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        else:
            save(tensors, tmp_path)
        config = json.loads((plain[0] / "config.json").read_text()) | settings
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


def save_legacy(tensors: dict[str, Tensor], folder: Path, **options: object) -> None:
    torch.save(tensors, folder / "pytorch_model.bin", **options)


def save_legacy_sharded(tensors: dict[str, Tensor], folder: Path) -> None:
    weight_map = {name: f"pytorch_model-{i % 3}.bin" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        shard = {name: tensors[name] for name in tensors if weight_map[name] == file}
        torch.save(shard, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_sharded_safetensors_load(tmp_path: Path):
    folder = write_checkpoint(tmp_path, llama(), max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    assert_same_logits(
        run(load(folder), PROMPTS, chunk=100), expected_logits(folder, PROMPTS), atol=1e-4
    )


@pytest.mark.parametrize(
    "save",
    [
        save_legacy,
        save_legacy_sharded,
        lambda tensors, folder: save_legacy(tensors, folder, _use_new_zipfile_serialization=False),
    ],
    ids=["one file", "sharded", "from before torch 1.6"],
)
def test_legacy_bin_files_load(
    rewrite: Callable[..., Path], plain: tuple[Path, list[Tensor]], save: Callable
):
    decoder = load(rewrite(save=save))
    assert_same_logits(run(decoder, PROMPTS, chunk=100), plain[1], atol=1e-4)


@pytest.mark.parametrize("save", [None, save_legacy], ids=["safetensors", "bin"])
def test_a_tensor_is_freed_once_it_was_copied(rewrite: Callable[..., Path], save: Callable | None):
    (file,) = weight_files(rewrite(save=save))
    reader, previous = read_tensors(file), None
    for _, tensor in reader:
        assert previous is None or previous() is None
        previous = weakref.ref(tensor)
        del tensor


def test_code_in_a_legacy_file_does_not_run(rewrite: Callable[..., Path], tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    def save(tensors: dict[str, Tensor], folder: Path) -> None:
        torch.save({"trap": Trap()}, folder / "pytorch_model.bin")
        (folder / "trap.pickle").write_bytes(pickle.dumps(Trap()))

    folder = rewrite(save=save)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load(folder)
    assert not (folder / "sprung").exists()
    pickle.loads((folder / "trap.pickle").read_bytes())
    assert (folder / "sprung").exists()


def test_a_tied_checkpoint_may_repeat_its_embedding_as_the_head(rewrite: Callable[..., Path]):
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    decoder = load(rewrite(change, tie_word_embeddings=True))
    names = [name for name, _ in decoder.named_parameters()]
    assert "embed.weight" in names
    assert "lm_head.weight" not in names


def test_mpt_loads_under_the_names_that_mosaicml_gave_it(tmp_path: Path):
    folder = write_checkpoint(tmp_path, mpt())
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["MPTForCausalLM"]
    config["auto_map"] = {"AutoConfig": "configuration_mpt.MPTConfig"}
    expected = expected_logits(folder, PROMPTS)
    (folder / "config.json").write_text(json.dumps(config))
    decoder = load(folder, trust_remote_code=True)
    assert_same_logits(run(decoder, PROMPTS, chunk=100), expected, atol=1e-4)


def test_a_missing_tensor_is_named(rewrite: Callable[..., Path]):
    folder = rewrite(lambda tensors: tensors.pop("model.layers.1.self_attn.k_proj.weight"))
    with pytest.raises(
        CheckpointError, match=r"missing model\.layers\.1\.self_attn\.k_proj\.weight"
    ):
        load(folder)


def test_a_bias_that_the_config_does_not_announce_is_named(rewrite: Callable[..., Path]):
    bias = "model.layers.0.self_attn.q_proj.bias"
    folder = rewrite(lambda tensors: tensors.update({bias: torch.zeros(48)}))
    with pytest.raises(CheckpointError, match=r"unexpected or repeated .*q_proj\.bias"):
        load(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(rewrite: Callable[..., Path]):
    folder = rewrite(num_key_value_heads=6)
    with pytest.raises(CheckpointError, match=r"k_proj.*\(16, 48\).*\(48, 48\)"):
        load(folder)


def test_a_tensor_in_two_shards_is_named(rewrite: Callable[..., Path]):
    def save(tensors: dict[str, Tensor], folder: Path) -> None:
        save_legacy_sharded(tensors, folder)
        first, second = (folder / f"pytorch_model-{i}.bin" for i in (0, 1))
        twice = torch.load(second, weights_only=True) | torch.load(first, weights_only=True)
        torch.save(twice, second)

    with pytest.raises(CheckpointError, match="missing none; unexpected or repeated"):
        load(rewrite(save=save))


def test_rotary_buffers_of_old_checkpoints_are_ignored(rewrite: Callable[..., Path]):
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    load(rewrite(lambda tensors: tensors.update(buffer)))


def test_a_shard_that_is_not_there_is_named(tmp_path: Path):
    folder = write_checkpoint(tmp_path, llama(), max_shard_size="20KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        load(folder)


def test_a_cut_off_file_is_named(rewrite: Callable[..., Path]):
    file = rewrite() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors"):
        load(file.parent)


def test_a_folder_without_weights_says_what_was_looked_for(rewrite: Callable[..., Path]):
    folder = rewrite(save=lambda tensors, folder: None)
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*pytorch_model\.bin"):
        load(folder)


def test_a_folder_without_a_config_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("model_type", ["gpt2", "never-heard-of-it"])
def test_an_unsupported_architecture_is_named(tmp_path: Path, model_type: str):
    config = {"model_type": model_type, "architectures": ["SomeForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=r"SomeForCausalLM.*upported: LlamaForCausalLM"):
        load(tmp_path)


def test_a_config_that_contradicts_itself_is_refused(rewrite: Callable[..., Path]):
    with pytest.raises(CheckpointError, match=r"config\.json.*not a multiple"):
        load(rewrite(num_attention_heads=7))


def test_a_quantised_checkpoint_is_refused(rewrite: Callable[..., Path]):
    folder = rewrite(quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModel, match="gptq"):
        load(folder)


def test_a_model_that_is_nowhere_says_where_it_was_looked_for():
    for find in (resolve_files, read_config, load_generation_defaults, load):
        with pytest.raises(ModelError, match=r"no model 'someone/something'.*no folder.*hub"):
            find("someone/something")


@pytest.mark.parametrize("save", [None, save_legacy_sharded], ids=["safetensors", "bin"])
def test_a_hub_id_loads_from_the_local_cache_without_network(
    plain: tuple[Path, list[Tensor]],
    rewrite: Callable[..., Path],
    save: Callable | None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
):
    cache, commit = tmp_path_factory.mktemp("hub"), 40 * "a"
    repository = cache / "models--someone--something"
    shutil.copytree(rewrite(save=save), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    decoder = load("someone/something", revision="main")
    assert_same_logits(run(decoder, PROMPTS, chunk=100), plain[1], atol=1e-4)


def test_generation_defaults_are_read_where_there_are_any(tmp_path: Path):
    assert load_generation_defaults(str(tmp_path)) == {}
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": [1, 2]}')
    assert load_generation_defaults(str(tmp_path)) == {"temperature": 0.6, "eos_token_id": [1, 2]}


def test_the_bar_counts_every_tensor(rewrite: Callable[..., Path], capfd: pytest.CaptureFixture):
    folder = rewrite()
    load(folder, progress=True)
    num_tensors = len(load_file(folder / "model.safetensors"))
    assert f"{num_tensors}/{num_tensors}" in capfd.readouterr().err
    load(folder, progress=False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("stated", ["bfloat16", None])
def test_auto_dtype_is_the_checkpoints_where_the_machine_computes_in_it(
    rewrite: Callable[..., Path], stated: str | None
):
    def narrow(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    folder = rewrite(narrow, dtype=stated)
    assert load(folder).dtype is native_dtype(torch.bfloat16, CPU)
    assert load(folder, dtype="bfloat16").dtype is torch.bfloat16
    assert load(folder, dtype=torch.float16).dtype is torch.float16


def test_no_cpu_is_taken_to_compute_in_float16():
    assert native_dtype(torch.float16, CPU) is torch.float32
    assert native_dtype(torch.float32, CPU) is torch.float32


def test_an_unknown_dtype_is_refused(plain: tuple[Path, list[Tensor]]):
    with pytest.raises(InvalidConfig, match="int8"):
        load(plain[0], dtype="int8")


def test_parameters_are_fused_and_held_once(plain: tuple[Path, list[Tensor]]):
    layer = load(plain[0]).layers[0]
    tensors = load_file(plain[0] / "model.safetensors")
    qkv = [tensors[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkv"]
    gate_up = [tensors[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up")]
    assert torch.equal(layer.attention.qkv.weight, torch.cat(qkv))
    assert torch.equal(layer.mlp.gate_up.weight, torch.cat(gate_up))
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_a_tied_checkpoint_with_another_head_is_refused(rewrite: Callable[..., Path]):
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        load(rewrite(change, tie_word_embeddings=True))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_numbers_that_must_be_packed_are_refused(rewrite: Callable[..., Path], dtype: torch.dtype):
    def change(tensors: dict[str, Tensor]) -> None:
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = tensors[name].to(dtype)

    with pytest.raises(CheckpointError, match="quantised"):
        load(rewrite(change))
