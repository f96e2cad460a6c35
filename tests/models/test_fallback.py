"""What no spec describes runs in transformers' own code, or is refused with a reason."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BloomConfig,
    CohereConfig,
    DeepseekV3Config,
    DeepseekV4Config,
    Gemma2Config,
    GPTJConfig,
    GraniteConfig,
    JambaConfig,
    Lfm2Config,
    Llama4TextConfig,
    MambaConfig,
    OlmoConfig,
    Phi3Config,
    PreTrainedConfig,
    T5Config,
)

from tests.models.checkpoints import (
    PROMPTS,
    expected_logits,
    llama,
    mpt,
    qwen3,
    write_checkpoint,
)
from tests.models.fallbacks import TINY, load_fallback, ministral, olmo, undescribed
from tests.models.paging import CPU, PagedRun, assert_same_logits, load, run
from toolkit.errors import CheckpointError, InvalidRequest, UnsupportedModel
from toolkit.kernels import select_ops
from toolkit.models import Decoder, KVShape, TransformersDecoder, open_model
from toolkit.models.fallback import probe

OPS = select_ops("reference", CPU)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint that no family describes."""
    return write_checkpoint(tmp_path_factory.mktemp("olmo"), olmo())


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return shutil.copytree(plain, tmp_path / "copy")


# ---- what it computes


@pytest.mark.parametrize("config", undescribed().values(), ids=undescribed().keys())
def test_logits_equal_transformers_however_a_prompt_is_cut(
    config: PreTrainedConfig, tmp_path: Path
):
    decoder = load_fallback(write_checkpoint(tmp_path, config))
    expected = expected_logits(tmp_path, PROMPTS)
    for chunk in (100, 7, 1):
        assert_same_logits(run(decoder, PROMPTS, chunk=chunk), expected, atol=1e-4)


@pytest.mark.parametrize(
    "config", [llama(), qwen3(use_sliding_window=True, sliding_window=6, max_window_layers=1)]
)
def test_it_agrees_with_our_own_decoder(config: PreTrainedConfig, tmp_path: Path):
    write_checkpoint(tmp_path, config)
    fallback, own = load_fallback(tmp_path), load(tmp_path)
    assert isinstance(own, Decoder)
    assert fallback.spec.kv_shape == own.spec.kv_shape
    assert fallback.spec.windows == own.spec.attention.windows
    assert fallback.spec.vocab_size == own.spec.vocab_size
    expected = run(own, PROMPTS, chunk=7)
    assert_same_logits(run(fallback, PROMPTS, chunk=7), expected, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        CohereConfig(**TINY, logit_scale=0.3),
        Gemma2Config(**TINY, head_dim=8, final_logit_softcapping=5.0, sliding_window=7),
        GraniteConfig(**TINY, logits_scaling=3.0, embedding_multiplier=2.0),
    ],
    ids=["scaled", "capped", "divided"],
)
def test_what_a_model_does_to_its_logits_is_done(config: PreTrainedConfig, tmp_path: Path):
    decoder = load_fallback(write_checkpoint(tmp_path, config))
    expected = expected_logits(tmp_path, PROMPTS)
    assert_same_logits(run(decoder, PROMPTS, chunk=7), expected, atol=1e-4)


def test_logits_are_computed_for_the_rows_asked_for(plain: Path):
    decoder = load_fallback(plain)
    steps = PagedRun(decoder, PROMPTS)
    batch = steps.batch([3, 1, 4, 2])
    hidden = decoder(batch, steps.kv)
    assert hidden.shape == (10, 48)
    rows = torch.tensor([9, 0])
    torch.testing.assert_close(decoder.logits(hidden[rows]), decoder.logits(hidden)[rows])


def test_bfloat16_passes_the_check_and_stays_near_float32(tmp_path: Path):
    write_checkpoint(tmp_path, ministral())
    narrow = load_fallback(tmp_path, dtype=torch.bfloat16)
    logits = run(narrow, PROMPTS, chunk=7)
    assert logits[0].dtype is torch.float32
    # Eight bits of mantissa through two layers, on logits of about 10.
    assert_same_logits(logits, expected_logits(tmp_path, PROMPTS), atol=0.5)


def test_two_decoders_in_two_threads_do_not_meet(plain: Path, tmp_path: Path):
    folders = [plain, write_checkpoint(tmp_path, ministral())]
    decoders = [load_fallback(folder) for folder in folders]
    expected = [run(decoder, PROMPTS, chunk=7) for decoder in decoders]
    found: list[list[torch.Tensor]] = [[], []]
    start = threading.Barrier(2)

    def work(index: int) -> None:
        start.wait()
        for _ in range(5):
            found[index] = run(decoders[index], PROMPTS, chunk=7)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_logits(ours, theirs, atol=1e-5)


# ---- what is known before the weights are loaded


def test_a_probe_measures_what_memory_is_planned_from(plain: Path):
    spec = probe(olmo())
    assert spec.kv_shape == KVShape(num_layers=2, num_kv_heads=2, head_dim=8)
    assert (spec.family, spec.vocab_size, spec.max_model_len) == ("OlmoForCausalLM", 97, 64)
    stored = load_file(plain / "model.safetensors")
    assert spec.num_parameters == sum(tensor.numel() for tensor in stored.values())


def test_windows_are_read_off_the_masks():
    assert probe(ministral()).windows == (7, None)
    assert probe(ministral(sliding_window=64)).windows == (None, None)  # no sequence is longer


def test_tied_embeddings_are_counted_once():
    tied, untied = probe(olmo(tie_word_embeddings=True)), probe(olmo())
    assert untied.num_parameters - tied.num_parameters == 97 * 48


def test_rotary_positions_that_follow_the_batch_bound_the_length():
    stretched = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
    }
    config = Phi3Config(**TINY, rope_parameters=stretched, original_max_position_embeddings=32)
    assert probe(config).max_model_len == 32
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert probe(olmo(rope_parameters=dynamic)).max_model_len == 64


# ---- refusals

LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
LATENT |= {"v_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
HYBRID = {"mamba_d_state": 4, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1}

# One key in 256 tokens stands for many: no short prompt would tell.
COMPRESSED = {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 256}
COMPRESSED |= {"layer_types": ["heavily_compressed_attention"] * 2, "n_routed_experts": 4}
COMPRESSED |= {"compress_rate_hca": 200, "q_lora_rank": 16, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GPTJConfig(n_layer=1), "does not call transformers' attention interface"),
        (BloomConfig(n_layer=1), "does not call transformers' attention interface"),
        (T5Config(), "encoder with a decoder"),
        (MambaConfig(num_hidden_layers=1), "state from token to token"),
        (JambaConfig(**TINY, **HYBRID), "state from token to token"),
        (DeepseekV3Config(**(TINY | LATENT)), "heads of 16 for queries, 16 for keys and 8 for val"),
        (Llama4TextConfig(**TINY, head_dim=8, attention_chunk_size=16), "chunks"),
        (BertConfig(**TINY), "later tokens"),
        (DeepseekV4Config(**(TINY | COMPRESSED)), "keys of shape (1, 1, 257, 8) for 256 tokens"),
        (PreTrainedConfig(), "no causal language model"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_what_paged_attention_cannot_do_is_refused_before_loading(
    config: PreTrainedConfig, reason: str
):
    config.architectures = ["ThatForCausalLM"] if not config.model_type else None
    with pytest.raises(UnsupportedModel, match=re.escape(reason)) as refused:
        probe(config)
    assert len(str(refused.value)) < 400


def test_a_state_beside_attention_is_found_by_the_numbers(tmp_path: Path):
    """Every layer of this model attends or convolves; made to attend only, its code is plain."""
    plain = Lfm2Config(**TINY, layer_types=["full_attention"] * 2)
    load_fallback(write_checkpoint(tmp_path / "plain", plain))
    mixed = Lfm2Config(**TINY, layer_types=["full_attention", "conv"])
    with pytest.raises(UnsupportedModel, match="Lfm2ForCausalLM"):
        load_fallback(write_checkpoint(tmp_path / "mixed", mixed))


REMOTE_CODE = '''
from torch.nn import Embedding, functional
from transformers import OlmoConfig, OlmoForCausalLM

class LookingBackConfig(OlmoConfig):
    model_type = "looking-back"

class LookingBack(Embedding):
    """Add to each token's embedding that of the token before it."""
    def forward(self, token_ids):
        embedded = super().forward(token_ids)
        return embedded + {weight} * functional.pad(embedded, (0, 0, 1, 0))[:, :-1]

class LookingBackForCausalLM(OlmoForCausalLM):
    config_class = LookingBackConfig
    def __init__(self, config):
        super().__init__(config)
        self.model.embed_tokens = LookingBack(config.vocab_size, config.hidden_size)
'''


@pytest.fixture
def remote(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[float], Path]:
    """Turn the checkpoint into one that brings its own code."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    monkeypatch.syspath_prepend(str(tmp_path / "hf"))

    def write(weight: float) -> Path:
        name = "looking_back" if weight else "looking_at"
        (copied / f"{name}.py").write_text(REMOTE_CODE.format(weight=weight))
        config = json.loads((copied / "config.json").read_text())
        config |= {"model_type": "looking-back", "architectures": ["LookingBackForCausalLM"]}
        config["auto_map"] = {
            "AutoConfig": f"{name}.LookingBackConfig",
            "AutoModelForCausalLM": f"{name}.LookingBackForCausalLM",
        }
        (copied / "config.json").write_text(json.dumps(config))
        return copied

    return write


def test_code_that_comes_with_a_model_runs_when_it_is_trusted(
    remote: Callable[[float], Path], plain: Path
):
    decoder = load_fallback(remote(0.0), trust_remote_code=True)
    assert decoder.spec.family == "LookingBackForCausalLM"
    expected = expected_logits(plain, PROMPTS)
    assert_same_logits(run(decoder, PROMPTS, chunk=7), expected, atol=1e-4)


def test_code_that_comes_with_a_model_is_left_alone_unless_trusted(
    remote: Callable[[float], Path],
):
    with pytest.raises(UnsupportedModel, match=r"LookingBackForCausalLM.*trust_remote_code=True"):
        open_model(str(remote(0.0)), device=CPU, ops=OPS)


def test_what_looks_plain_and_is_not_is_refused_when_it_is_loaded(
    remote: Callable[[float], Path],
):
    with pytest.raises(UnsupportedModel, match=r"LookingBackForCausalLM.*does not reproduce.*%"):
        load_fallback(remote(1.0), trust_remote_code=True)


def test_an_architecture_is_not_taken_for_another_of_its_model_type(copied: Path):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"architectures": ["OlmoWithATwist"]}))
    with pytest.raises(UnsupportedModel, match=r"OlmoWithATwist.*makes a OlmoForCausalLM"):
        open_model(str(copied), device=CPU, ops=OPS)


def test_a_model_type_that_transformers_does_not_know_is_named(copied: Path):
    config = {"model_type": "never-heard-of-it", "architectures": ["NeverForCausalLM"]}
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=r"NeverForCausalLM.*never-heard-of-it"):
        open_model(str(copied), device=CPU, ops=OPS)


def test_hooks_are_refused(plain: Path):
    decoder = load_fallback(plain)
    steps = PagedRun(decoder, PROMPTS)
    with pytest.raises(InvalidRequest, match=r"OlmoForCausalLM.*no activations"):
        steps.finish(chunk=7, tap=lambda point, layer, x: x)
    with pytest.raises(InvalidRequest, match="no activations"):
        steps.finish(chunk=7, attn_probs=(0,))
    with pytest.raises(InvalidRequest, match="no activations"):
        decoder.logits(torch.zeros(1, 48), lambda point, layer, x: x)


# ---- opening and loading


def test_a_described_model_is_ours_and_any_other_is_transformers(plain: Path, tmp_path: Path):
    theirs = open_model(str(plain), device=CPU, ops=OPS)
    ours = open_model(str(write_checkpoint(tmp_path, llama())), device=CPU, ops=OPS)
    assert isinstance(theirs.load(progress=False), TransformersDecoder)
    assert isinstance(ours.load(progress=False), Decoder)
    for source in (theirs, ours):
        decoder = source.load(max_model_len=40, progress=False)
        assert decoder.spec.max_model_len == 40
        assert source.num_parameters == sum(p.numel() for p in decoder.parameters())
        assert source.weight_bytes == 4 * source.num_parameters


def test_a_setting_that_a_family_does_not_know_goes_to_transformers(tmp_path: Path):
    write_checkpoint(tmp_path, llama(hidden_act="relu6"))
    decoder = open_model(str(tmp_path), device=CPU, ops=OPS).load(progress=False)
    assert isinstance(decoder, TransformersDecoder)
    expected = expected_logits(tmp_path, PROMPTS)
    assert_same_logits(run(decoder, PROMPTS, chunk=7), expected, atol=1e-4)


def test_what_neither_can_do_says_why_of_both(tmp_path: Path):
    config = mpt(attention={"qk_ln": True})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(UnsupportedModel, match=r"attention interface; and MPT .*qk_ln"):
        open_model(str(tmp_path), device=CPU, ops=OPS)
    (tmp_path / "config.json").write_text(json.dumps(GPTJConfig(n_layer=1).to_dict()))
    with pytest.raises(UnsupportedModel, match=r"gptj.*attention interface; and none of the"):
        open_model(str(tmp_path), device=CPU, ops=OPS)


def test_one_line_says_that_transformers_code_runs(plain: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        load_fallback(plain)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "OlmoForCausalLM" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_bars_show_only_when_asked_for(plain: Path, capfd: pytest.CaptureFixture[str]):
    load_fallback(plain, progress=True)
    assert "%" in capfd.readouterr().err
    load_fallback(plain, progress=False)
    assert "%" not in capfd.readouterr().err


def rewrite_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_missing_tensor_is_named_and_never_made_up(copied: Path):
    rewrite_tensors(copied, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"1 missing .*layers\.1\.mlp\.up_proj"):
        load_fallback(copied)


def test_a_tensor_of_another_shape_is_named(copied: Path):
    narrow = {"model.layers.0.mlp.up_proj.weight": torch.zeros(3, 48)}
    rewrite_tensors(copied, lambda tensors: tensors.update(narrow))
    with pytest.raises(CheckpointError, match=r"1 misshapen .*layers\.0\.mlp\.up_proj"):
        load_fallback(copied)


def test_a_file_cut_short_is_a_checkpoint_error(copied: Path):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load"):
        load_fallback(copied)
    file.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load_fallback(copied)


@pytest.mark.parametrize(
    ("method", "says"), [("gptq", "gptq"), ("mxfp4", "OlmoForCausalLM is quantised")]
)
def test_a_quantised_checkpoint_is_refused(copied: Path, method: str, says: str):
    config = json.loads((copied / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method}
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=says):
        open_model(str(copied), device=CPU, ops=OPS)


def test_loading_leaves_the_config_it_was_given(plain: Path):
    source = open_model(str(plain), device=CPU, ops=OPS)
    before = source.config.to_dict()
    source.load(progress=False)
    assert source.config.to_dict() == before
    assert isinstance(source.config, OlmoConfig)


def test_a_described_model_does_without_transformers_modelling_code(tmp_path: Path):
    """It would add a second or more to the first token of every process."""
    write_checkpoint(tmp_path, llama())
    code = (
        "import sys, torch; from toolkit.kernels import select_ops; "
        "from toolkit.models import open_model; cpu = torch.device('cpu'); "
        "source = open_model(sys.argv[1], device=cpu, ops=select_ops('auto', cpu)); "
        "source.load(progress=False); "
        "sys.exit('transformers.modeling_utils' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 0
