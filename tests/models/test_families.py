"""A config becomes a spec, or a clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTJConfig, PreTrainedConfig
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from tests.models.checkpoints import llama, mpt, qwen3
from toolkit.errors import InvalidConfig, UnsupportedModel
from toolkit.models import AttentionSpec, decoder_spec, find_family, read_config


@pytest.mark.parametrize("num_heads", [1, 2, 3, 4, 6, 8, 12, 32, 40])
@pytest.mark.parametrize("bias_max", [8, 16])
def test_mpt_slopes_are_those_of_transformers(num_heads: int, bias_max: int):
    config = mpt(d_model=4 * num_heads, n_heads=num_heads, attention={"alibi_bias_max": bias_max})
    bias = build_mpt_alibi_tensor(num_heads, 2, alibi_bias_max=bias_max)
    slopes = torch.tensor(decoder_spec(config).attention.alibi_slopes)
    torch.testing.assert_close(slopes, -bias[:, 0, 0])


def test_a_spec_is_for_the_context_of_its_checkpoint_unless_told():
    assert decoder_spec(llama()).max_model_len == 64
    assert decoder_spec(mpt(max_seq_len=32)).max_model_len == 32
    assert decoder_spec(llama(), max_model_len=10).max_model_len == 10


def test_windows_are_per_layer():
    config = qwen3(use_sliding_window=True, sliding_window=6, max_window_layers=1)
    assert decoder_spec(config).attention.windows == (None, 6)
    assert decoder_spec(qwen3(sliding_window=6)).attention.windows == (None, None)


@pytest.mark.parametrize(("logit_scale", "expected"), [(None, 1), (0.5, 0.5)])
def test_mpt_scales_its_logits_as_mosaicml_does(logit_scale: float | None, expected: float):
    assert decoder_spec(mpt(logit_scale=logit_scale)).logit_scale == expected
    by_name = decoder_spec(mpt(logit_scale="inv_sqrt_d_model"))
    assert by_name.logit_scale == pytest.approx(48**-0.5)


@pytest.mark.parametrize(
    ("setting", "config"),
    [
        ("alibi", mpt(attention={"alibi": False})),
        ("qk_ln", mpt(attention={"qk_ln": True})),
        ("prefix_lm", mpt(attention={"prefix_lm": True})),
        ("attn_type", mpt(attention={"attn_type": "multiquery_attention"})),
        ("no_bias", mpt(no_bias=False)),
    ],
)
def test_an_mpt_that_computes_something_else_is_refused(setting: str, config: PreTrainedConfig):
    with pytest.raises(UnsupportedModel, match=setting):
        decoder_spec(config)


def test_an_unknown_activation_is_refused():
    with pytest.raises(UnsupportedModel, match="relu6"):
        decoder_spec(llama(hidden_act="relu6"))


def test_the_architecture_decides_and_the_model_type_where_there_is_none():
    assert find_family(mpt(architectures=["MPTForCausalLM"])).name == "mpt"
    assert find_family(qwen3(architectures=None)).name == "qwen3"
    assert find_family(qwen3(architectures=["LlamaForCausalLM"])).name == "llama"


@pytest.mark.parametrize("architectures", [["GPTJForCausalLM"], None])
def test_an_unknown_architecture_names_those_that_are_known(architectures: list[str] | None):
    name = "GPTJForCausalLM" if architectures else "gptj"
    with pytest.raises(UnsupportedModel, match=f"{name}.*LlamaForCausalLM.*Qwen3.*Mpt"):
        find_family(GPTJConfig(architectures=architectures))


@pytest.mark.parametrize(
    "wrong", [{"num_kv_heads": 3}, {"alibi_slopes": (0.5,)}], ids=["groups", "slopes"]
)
def test_a_spec_that_contradicts_itself_is_refused(wrong: dict[str, Any]):
    right = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "scale": 1.0, "windows": ()}
    with pytest.raises(InvalidConfig):
        AttentionSpec(**(right | wrong))


def test_the_config_that_mpt_7b_ships_is_read(tmp_path: Path):
    attention = {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0}
    attention |= {"attn_type": "multihead_attention", "attn_uses_sequence_id": False}
    attention |= {"clip_qkv": None, "prefix_lm": False, "qk_ln": False, "softmax_scale": None}
    shipped = {"architectures": ["MPTForCausalLM"], "model_type": "mpt", "attn_config": attention}
    shipped |= {"auto_map": {"AutoConfig": "configuration_mpt.MPTConfig"}, "d_model": 4096}
    shipped |= {"emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4, "n_heads": 32}
    shipped |= {"init_config": {"name": "kaiming_normal_"}, "init_device": "cpu", "n_layers": 32}
    shipped |= {"learned_pos_emb": True, "logit_scale": None, "max_seq_len": 2048, "verbose": 0}
    shipped |= {"no_bias": True, "norm_type": "low_precision_layernorm", "resid_pdrop": 0}
    shipped |= {"tokenizer_name": "EleutherAI/gpt-neox-20b", "torch_dtype": "bfloat16"}
    shipped |= {"use_cache": False, "vocab_size": 50432}
    (tmp_path / "config.json").write_text(json.dumps(shipped))
    config = read_config(str(tmp_path))
    assert config.dtype is torch.bfloat16
    spec = decoder_spec(config)
    assert (spec.family, spec.num_layers, spec.attention.head_dim) == ("mpt", 32, 128)
    assert spec.mlp.intermediate_size == 16384
    assert spec.attention.alibi_slopes[0] == pytest.approx(2**-0.25)
