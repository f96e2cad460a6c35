"""Say what a family is: which checkpoints it reads, and how.

To add one: a file with a ``Family``, and a line in families/__init__.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedConfig

from toolkit.errors import UnsupportedModel
from toolkit.models.spec import DecoderSpec

__all__ = ["Family", "activation"]

_ACTIVATIONS: dict[str, Literal["silu", "gelu", "gelu_tanh"]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Checkpoints of one architecture: from config to spec, from tensor names to parameters.

    ``names`` maps a checkpoint's module to ours, without ``.weight`` or ``.bias``; ``{i}`` runs
    over the layers. ``attention.qkv:q`` is the part q of a fused matrix (parts: q, k, v, gate, up).
    """

    name: str
    architectures: tuple[str, ...]  # config.architectures[0]
    model_types: tuple[str, ...]  # config.model_type, where a config names no architecture
    spec: Callable[[PreTrainedConfig, int], DecoderSpec]  # of a config and max_model_len
    names: Mapping[str, str]
    length_field: str = "max_position_embeddings"  # of the config: tokens it was made for
    ignored: tuple[str, ...] = ()  # endings of tensors that hold nothing the spec does not say


def activation(config_name: str) -> Literal["silu", "gelu", "gelu_tanh"]:
    """Translate a config's activation name; raise UnsupportedModel for one we lack."""
    if config_name not in _ACTIVATIONS:
        raise UnsupportedModel(
            f"no activation {config_name!r}; there are {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[config_name]
