"""The families of models: one file each, found by the architecture that a config names."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.errors import UnsupportedModel
from toolkit.models.families.bloom import BLOOM
from toolkit.models.families.cohere import COHERE, COHERE2
from toolkit.models.families.falcon import FALCON
from toolkit.models.families.family import Family, refuse
from toolkit.models.families.gemma import GEMMA, GEMMA2, GEMMA3
from toolkit.models.families.gpt2 import GPT2
from toolkit.models.families.gpt_neox import GPT_NEOX
from toolkit.models.families.gpt_oss import GPT_OSS
from toolkit.models.families.granite import GRANITE
from toolkit.models.families.llama import LLAMA
from toolkit.models.families.mistral import MISTRAL
from toolkit.models.families.mixtral import MIXTRAL
from toolkit.models.families.mpt import MPT
from toolkit.models.families.olmo2 import OLMO2
from toolkit.models.families.opt import OPT
from toolkit.models.families.phi3 import PHI3
from toolkit.models.families.qwen2 import QWEN2
from toolkit.models.families.qwen3 import QWEN3
from toolkit.models.families.qwen3_moe import QWEN3_MOE
from toolkit.models.families.smollm3 import SMOLLM3
from toolkit.models.families.stablelm import STABLELM
from toolkit.models.families.starcoder2 import STARCODER2
from toolkit.models.spec import DecoderSpec

__all__ = ["FAMILIES", "Family", "decoder_spec", "find_family", "supported_architectures"]

FAMILIES = (
    LLAMA,
    MISTRAL,
    MIXTRAL,
    QWEN2,
    QWEN3,
    QWEN3_MOE,
    GEMMA,
    GEMMA2,
    GEMMA3,
    PHI3,
    SMOLLM3,
    OLMO2,
    GRANITE,
    COHERE,
    COHERE2,
    STABLELM,
    STARCODER2,
    GPT_OSS,
    GPT2,
    GPT_NEOX,
    OPT,
    BLOOM,
    FALCON,
    MPT,
)


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
    made_for = getattr(config, family.length_field, None) or family.default_length
    refuse(family.name, {"is_causal=False": getattr(config, "is_causal", True) is False})
    try:
        return family.spec(config, max_model_len or made_for)
    except AttributeError as error:  # the config class of another family
        raise UnsupportedModel(f"a {type(config).__name__} has no {error.name}") from error
