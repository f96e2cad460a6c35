"""The families of models: one file each, found by the architecture that a config names."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.errors import UnsupportedModel
from toolkit.models.families.family import Family
from toolkit.models.families.llama import LLAMA
from toolkit.models.families.mpt import MPT
from toolkit.models.families.qwen3 import QWEN3
from toolkit.models.spec import DecoderSpec

__all__ = ["FAMILIES", "Family", "decoder_spec", "find_family", "supported_architectures"]

FAMILIES = (LLAMA, QWEN3, MPT)


def find_family(config: PreTrainedConfig) -> Family:
    """Return the family of ``config.architectures[0]``, or of model_type if it names none.

    Raises UnsupportedModel, naming the architectures there are.
    """
    architecture = next(iter(config.architectures or ()), None)
    for family in FAMILIES:
        if architecture in family.architectures:
            return family
        if architecture is None and config.model_type in family.model_types:
            return family
    raise UnsupportedModel(
        f"no model family describes {architecture or config.model_type!r}; "
        f"supported: {supported_architectures()}"
    )


def supported_architectures() -> str:
    """Name the architectures that a family describes, as errors show them."""
    return ", ".join(name for family in FAMILIES for name in family.architectures)


def decoder_spec(config: PreTrainedConfig, max_model_len: int | None = None) -> DecoderSpec:
    """Describe the decoder of a config for sequences of up to ``max_model_len`` tokens.

    Without ``max_model_len``, for those that the checkpoint was made for.
    """
    family = find_family(config)
    return family.spec(config, max_model_len or getattr(config, family.length_field))
