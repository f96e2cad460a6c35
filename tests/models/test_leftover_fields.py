"""A config may hold fields of the model that it was made of: they are read as transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedConfig

from tests.models.checkpoints import FAMILIES, PROMPTS, expected_logits, write_checkpoint
from tests.models.paging import assert_same_logits, load, run
from toolkit.errors import UnsupportedModel

FIELDS: dict[str, dict[str, Any]] = {
    "sliding_window": {"sliding_window": 4},
    "use_sliding_window": {"sliding_window": 4, "use_sliding_window": True},
    "layer_types": {
        "sliding_window": 4,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "use_qk_norm": {"use_qk_norm": True},
    "is_causal": {"is_causal": False},
    "final_logit_softcapping": {"final_logit_softcapping": 2.0},
    "attn_logit_softcapping": {"attn_logit_softcapping": 2.0},
    "norm_topk_prob": {"norm_topk_prob": False},
}


def changed(config: PreTrainedConfig, fields: dict[str, Any]) -> PreTrainedConfig:
    """The same config with fields set that it may or may not know."""
    settings = config.to_dict() | fields
    if "layer_types" in fields:
        settings["layer_types"] = fields["layer_types"][: config.num_hidden_layers]
    if "partial_rotary_factor" in fields and "rope_parameters" in settings:
        settings["rope_parameters"] = settings["rope_parameters"] | fields
    return type(config)(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_is_read_as_transformers_reads_it_or_refused(
    family: str, field: str, tmp_path: Path
):
    try:
        folder = write_checkpoint(tmp_path, changed(FAMILIES[family], FIELDS[field]))
        expected = expected_logits(folder, PROMPTS)
    except Exception as error:
        pytest.skip(f"transformers cannot run {family} with {field}: {type(error).__name__}")
    try:
        decoder = load(folder)
    except UnsupportedModel:
        return
    assert_same_logits(run(decoder, PROMPTS, chunk=9), expected, atol=1e-4)
