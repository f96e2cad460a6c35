"""Find out how an architecture attends by running it without weights and watching.

The model is built on torch's meta device, where tensors have shapes and no values, and a sequence
runs through it. A recording attention function and mask function stand in for the real ones, so
what is known afterwards is what transformers' code does, not what a config seems to promise.
"""

from __future__ import annotations

import copy
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from toolkit.errors import UnsupportedModel
from toolkit.models.fallback.masks import MaskFunction, window_of
from toolkit.models.fallback.refusal import naming_state, refusal, refusing
from toolkit.models.fallback.spec import TransformersSpec

__all__ = ["probe"]

_PROBE = "toolkit_probe"
# Tokens without values cost nothing, and what compresses or selects keys, as sparse attention does,
# may begin to do so only after hundreds of them.
_MOST_TOKENS = 4096
_LENGTH_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_NO_INTERFACE = "its code does not call transformers' attention interface"
# Arguments of attention that a paged step answers itself or that do not change what is computed.
_UNDERSTOOD = frozenset(
    "dropout scaling softcap s_aux sliding_window is_causal position_ids cache_position "
    "use_cache output_attentions output_hidden_states output_router_logits return_dict "
    "logits_to_keep position_embeddings".split()
)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the attention function."""

    layer: int  # -1 if its module does not say
    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    mask: MaskFunction | None  # None if the layer was given no mask, or one of its own making
    surprises: tuple[str, ...]  # arguments that paged attention knows nothing of


@dataclass(slots=True)
class _Recording:
    """What one forward pass did."""

    calls: list[_Call] = field(default_factory=list)
    masks: list[tuple[Tensor, MaskFunction]] = field(default_factory=list)


# Each thread records for itself.
_recording: ContextVar[_Recording] = ContextVar("recording")


def probe(config: PreTrainedConfig, *, trust_remote_code: bool = False) -> TransformersSpec:
    """Describe the decoder that transformers makes of a config, without allocating it.

    Raises UnsupportedModel, naming the architecture and the reason, unless every layer attends
    once, causally or in a window, with heads of one size.
    """
    model = _build(config, trust_remote_code)
    with naming_state(model):
        return _describe(model)


def _describe(model: PreTrainedModel) -> TransformersSpec:
    """Run a model on the meta device and describe what it did."""
    name = type(model).__name__
    max_model_len = _longest_sequence(model)
    num_tokens = min(max_model_len or _MOST_TOKENS, _MOST_TOKENS)
    try:
        recording, vocab_size = _run(model, num_tokens)
    except UnsupportedModel as error:
        if not model._supports_attention_backend:
            raise refusal(name, _NO_INTERFACE) from error
        raise
    if not recording.calls:
        raise refusal(name, _NO_INTERFACE)
    if max_model_len is None:
        raise refusal(name, f"its config has none of {', '.join(_LENGTH_FIELDS)}")
    layers = _in_order(recording.calls, name)
    _require_plain(layers, name, num_tokens=num_tokens)
    return TransformersSpec(
        family=name,
        vocab_size=vocab_size,
        num_layers=len(layers),
        max_model_len=max_model_len,
        num_kv_heads=layers[0].key[1],
        head_dim=layers[0].key[3],
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        windows=_windows(layers, max_model_len, name),
    )


def _build(config: PreTrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """Make the model on the meta device, with the recording attention."""
    name = next(iter(config.architectures or ()), None) or str(config.model_type)
    if getattr(config, "is_encoder_decoder", False):
        raise refusal(name, "it is an encoder with a decoder")
    if not trust_remote_code and type(config) not in AutoModelForCausalLM._model_mapping:
        raise refusal(name, f"transformers has no causal language model for {config.model_type!r}")
    with refusing(name, "it is built"), torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config),  # from_config writes into it
                dtype=torch.float32,  # another would be torch's default meanwhile, in all threads
                attn_implementation=_PROBE,
                experts_implementation="batched_mm",  # the one that asks no tensor for its values
                trust_remote_code=trust_remote_code,
            )
        except KeyError as error:
            if error.args != (_PROBE,):
                raise
            # Its code picks a class of attention from a table of its own.
            raise refusal(name, _NO_INTERFACE) from error
    made = type(model).__name__
    if config.architectures and made.lower() != name.lower():
        raise refusal(name, f"of model type {config.model_type!r} transformers makes a {made}")
    return model


def _longest_sequence(model: PreTrainedModel) -> int | None:
    """Return the tokens that the positions are made for; None if the config does not say.

    Two rotary types follow the longest sequence of a *batch*, so that a request's tokens would
    depend on its batch-mates; they are held to the length up to which they stay the same.
    """
    config = model.config.get_text_config()
    found = (getattr(config, field, None) for field in _LENGTH_FIELDS)
    length = next((tokens for tokens in found if tokens), None)
    if length is None:
        return None
    for module in model.modules():
        types = getattr(module, "rope_type", None)
        for kind in types.values() if isinstance(types, dict) else (types,):
            if kind == "longrope":
                length = min(length, _original_length(module.config.rope_parameters, length))
            elif isinstance(kind, str) and "dynamic" in kind:
                length = min(length, module.max_seq_len_cached)
    return length


def _original_length(parameters: dict[str, Any], otherwise: int) -> int:
    """Return the length a longrope was stretched from; parameters may be per type of layer."""
    each = [one for one in (parameters, *parameters.values()) if isinstance(one, dict)]
    return min(one.get("original_max_position_embeddings", otherwise) for one in each)


def _run(model: PreTrainedModel, num_tokens: int) -> tuple[_Recording, int]:
    """Run tokens; return what attention saw, and the width of the logits."""
    for module in model.modules():
        # These two would compare positions, which have no values here; see _longest_sequence.
        if hasattr(module, "rope_type"):
            module.rope_type = _without_batch_dependence(module.rope_type)
    recording = _Recording()
    token = _recording.set(recording)
    try:
        with (
            refusing(type(model).__name__, "it runs without weights"),
            torch.device("meta"),
            torch.no_grad(),
        ):
            output = model(
                input_ids=torch.zeros((1, num_tokens), dtype=torch.int64),
                position_ids=torch.arange(num_tokens).unsqueeze(0),
                # Without one, transformers would look for packed sequences in the positions; with
                # values, because some models ask whether any token is masked.
                attention_mask=torch.ones((1, num_tokens), dtype=torch.int64, device="cpu"),
                use_cache=False,
            )
    finally:
        _recording.reset(token)
    return recording, int(output[0].shape[-1])


def _without_batch_dependence(kind: Any) -> Any:
    if isinstance(kind, dict):
        return dict.fromkeys(kind, "default")
    return "default"


def _in_order(calls: list[_Call], name: str) -> list[_Call]:
    """Order the calls by layer; refuse unless there is one for each."""
    layers = [call.layer for call in calls]
    if sorted(layers) != list(range(len(calls))):
        raise refusal(name, f"its layers attend in the order {_some(layers)}, not once each from 0")
    return sorted(calls, key=lambda call: call.layer)


def _require_plain(layers: list[_Call], name: str, *, num_tokens: int) -> None:
    """Refuse other shapes than paged attention has, and arguments that it would ignore."""
    first = layers[0]
    for call in layers:
        if len(call.key) != 4 or call.key[0] != 1 or call.key[2] != num_tokens:
            shape = f"layer {call.layer} has keys of shape {call.key} for {num_tokens} tokens"
            raise refusal(name, shape)
        if call.value != call.key or call.query[3] != call.key[3]:
            raise refusal(
                name,
                f"layer {call.layer} has heads of {call.query[3]} for queries, {call.key[3]} for "
                f"keys and {call.value[3]} for values",
            )
        if call.key != first.key:
            raise refusal(
                name,
                f"layer {call.layer} has {call.key[1]} key heads of {call.key[3]}, "
                f"layer 0 has {first.key[1]} of {first.key[3]}",
            )
        if call.surprises:
            raise refusal(name, f"its attention takes {_some(call.surprises)}")


def _windows(layers: list[_Call], max_model_len: int, name: str) -> tuple[int | None, ...]:
    """Read each layer's window off the mask that it was given."""
    windows: list[int | None] = []
    known: dict[MaskFunction, int | None] = {}  # a forward pass makes few masks for many layers
    for call in layers:
        if call.mask is None:
            raise refusal(name, f"layer {call.layer} makes its own mask, or none")
        if call.mask not in known:
            try:
                known[call.mask] = window_of(call.mask, max_model_len)
            except ValueError as error:
                raise refusal(name, f"layer {call.layer}: {error}") from error
        windows.append(known[call.mask])
    return tuple(windows)


def _some(names: Any) -> str:
    """Show the first few of many."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")


def _record_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Note what a layer's attention is given; answer with the right shape."""
    recording = _recording.get()
    masks = (function for made, function in recording.masks if made is attention_mask)
    surprises = tuple(
        name
        for name, given in arguments.items()
        if name not in _UNDERSTOOD and given is not None and given is not False
    )
    call = _Call(
        -1 if (layer := getattr(module, "layer_idx", None)) is None else layer,
        tuple(query.shape),
        tuple(key.shape),
        tuple(value.shape),
        next(masks, None),
        surprises,
    )
    recording.calls.append(call)
    mixed = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    return mixed, None


def _record_mask(
    *, batch_size: int, q_length: int, kv_length: int, mask_function: MaskFunction, **_: Any
) -> Tensor:
    """Note which function would fill a mask; answer with a mask that stands for it."""
    mask = torch.empty((batch_size, 1, q_length, kv_length), dtype=torch.bool, device="meta")
    _recording.get().masks.append((mask, mask_function))
    return mask


AttentionInterface.register(_PROBE, _record_attention)
AttentionMaskInterface.register(_PROBE, _record_mask)
