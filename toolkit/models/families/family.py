"""Say what a family is: which checkpoints it reads, and how.

To add one: a file with a ``Family``, and a line in families/__init__.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transformers import PreTrainedConfig

from toolkit.errors import UnsupportedModel
from toolkit.models.spec import ActivationName, DecoderSpec

__all__ = ["Family", "activation", "layer_windows", "one_window", "refuse"]

_ACTIVATIONS: dict[str, ActivationName] = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Checkpoints of one architecture: from config to spec, from tensor names to parameters.

    ``names`` maps a checkpoint's module to ours, without ``.weight`` or ``.bias``; ``{i}`` runs
    over the layers, ``{n}`` over experts or heads. ``attention.qkv:q`` is the part q of a fused
    matrix; models.places lists the parts.
    """

    name: str
    architectures: tuple[str, ...]  # config.architectures[0]
    model_types: tuple[str, ...]  # config.model_type, where a config names no architecture
    spec: Callable[[PreTrainedConfig, int], DecoderSpec]  # of a config and max_model_len
    names: Mapping[str, str]
    length_field: str = "max_position_embeddings"  # of the config: tokens it was made for
    default_length: int = 2048  # where the config does not say
    prefix: str = ""  # that names lack in a checkpoint of the bare model
    ignored: tuple[str, ...] = ()  # endings of tensors that hold nothing the spec does not say


def activation(config_name: str) -> ActivationName:
    """Translate a config's activation name; raise UnsupportedModel for one we lack."""
    if config_name not in _ACTIVATIONS:
        raise UnsupportedModel(
            f"no activation {config_name!r}; there are {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[config_name]


def one_window(config: PreTrainedConfig) -> tuple[int | None, ...]:
    """Return how many positions each layer sees, its own included, where all see the same."""
    return (config.sliding_window,) * config.num_hidden_layers


def layer_windows(config: PreTrainedConfig) -> tuple[int | None, ...]:
    """Return how many positions each layer sees, its own included, by its type; None is all.

    Raises UnsupportedModel for a type that is neither full nor sliding attention.
    """
    by_type = {"full_attention": None, "sliding_attention": config.sliding_window}
    unknown = sorted(set(config.layer_types) - set(by_type))
    if unknown:
        raise UnsupportedModel(f"no layers of type {', '.join(unknown)}")
    return tuple(by_type[kind] for kind in config.layer_types)


def refuse(name: str, settings: Mapping[str, bool]) -> None:
    """Raise UnsupportedModel for a config that sets what a family's spec cannot say."""
    found = [setting for setting, is_set in settings.items() if is_set]
    if found:
        raise UnsupportedModel(f"{name} with this {', '.join(found)} is not described by a spec")
