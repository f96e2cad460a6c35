"""Fill a decoder from a checkpoint: each tensor into its slice, shard by shard.

Parameters are allocated once, fused and in their final dtype, and each checkpoint tensor is copied
into its place, so a model is never held twice. Every parameter must be covered exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from toolkit.errors import CheckpointError, UnsupportedModel
from toolkit.kernels import Ops
from toolkit.models.checkpoint import read_tensors, weight_files
from toolkit.models.decoder import Decoder
from toolkit.models.dtypes import native_dtype, parse_dtype
from toolkit.models.families import Family, decoder_spec, find_family
from toolkit.models.hub import read_config, resolve_files
from toolkit.models.spec import DecoderSpec

__all__ = ["load_decoder", "refuse_quantized", "resolve_dtype"]


def load_decoder(
    model: str,
    *,
    device: torch.device,
    ops: Ops,
    dtype: str | torch.dtype = "auto",
    max_model_len: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Decoder:
    """Build the decoder of a local folder or hub id and load its weights.

    ``dtype`` "auto" is the checkpoint's, or float32 where ``device`` cannot compute in it.
    ``progress`` shows a bar over the tensors. Raises ModelError: UnsupportedModel for an
    architecture without a family, CheckpointError for missing, unexpected or misshapen tensors.
    """
    config = read_config(model, revision, trust_remote_code)
    family, spec = find_family(config), decoder_spec(config, max_model_len)
    refuse_quantized(config, model)
    files = weight_files(resolve_files(model, revision))
    found = resolve_dtype(dtype, config, model, device=device, revision=revision)
    decoder = Decoder(spec, ops, dtype=found, device=device)
    places = _places(decoder, family)
    tensors = (item for file in files for item in read_tensors(file))
    with tqdm(total=len(places), desc="Loading", unit="tensor", disable=not progress) as bar:
        _fill(places, family, tensors, bar)
    return decoder


def resolve_dtype(
    dtype: str | torch.dtype,
    config: PreTrainedConfig,
    model: str,
    *,
    device: torch.device,
    revision: str | None = None,
) -> torch.dtype:
    """Return the dtype a checkpoint is computed in; "auto" is its own where ``device`` has it."""
    if dtype != "auto":
        return parse_dtype(dtype)
    if config.dtype is not None:
        stored = parse_dtype(config.dtype)
    else:
        stored = _stored_dtype(weight_files(resolve_files(model, revision))[0])
    return native_dtype(stored, device)


def refuse_quantized(config: PreTrainedConfig, model: str) -> None:
    """Raise UnsupportedModel for a checkpoint whose weights are not floating-point numbers."""
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        raise UnsupportedModel(
            f"{model} is quantised ({quantization}); load a checkpoint in a floating type"
        )


def _stored_dtype(file: Path) -> torch.dtype:
    """Return the dtype of a checkpoint's first floating tensor."""
    floating = (tensor.dtype for _, tensor in read_tensors(file) if tensor.is_floating_point())
    return next(floating, torch.float32)


def _places(decoder: Decoder, family: Family) -> dict[str, Tensor]:
    """Map each checkpoint tensor's name to the part of a parameter that it fills."""
    parameters = dict(decoder.named_parameters())
    places: dict[str, Tensor] = {}
    for theirs, ours in family.names.items():
        module, _, part = ours.partition(":")
        for layer in range(decoder.spec.num_layers if "{i}" in ours else 1):
            for kind in ("weight", "bias"):
                parameter = parameters.get(f"{module.format(i=layer)}.{kind}")
                if parameter is not None:
                    name = f"{theirs.format(i=layer)}.{kind}"
                    places[name] = parameter[_rows(decoder.spec, part)]
    return places


def _rows(spec: DecoderSpec, part: str) -> slice:
    """Return the rows that a part takes in its fused parameter."""
    query, kv, width = spec.attention.query_dim, spec.attention.kv_dim, spec.mlp.intermediate_size
    return {
        "": slice(None),
        "q": slice(0, query),
        "k": slice(query, query + kv),
        "v": slice(query + kv, query + 2 * kv),
        "gate": slice(0, width),
        "up": slice(width, 2 * width),
    }[part]


def _fill(
    places: dict[str, Tensor],
    family: Family,
    tensors: Iterable[tuple[str, Tensor]],
    bar: tqdm,
) -> None:
    """Copy every tensor into its place; raise CheckpointError unless they match one to one."""
    missing, unexpected = set(places), []
    for name, tensor in tensors:
        if name not in missing:
            unexpected.append(name)
            continue
        if tensor.shape != places[name].shape:
            raise CheckpointError(
                f"tensor {name} has shape {tuple(tensor.shape)}, "
                f"the config asks for {tuple(places[name].shape)}"
            )
        places[name].copy_(tensor)
        missing.remove(name)
        bar.update()
    # A tied model's file may repeat the embedding as the head.
    harmless = (*family.ignored, "lm_head.weight")
    unexpected = [name for name in unexpected if name in places or not name.endswith(harmless)]
    if missing or unexpected:
        raise CheckpointError(
            f"the tensors do not fit {family.name}: "
            f"missing {_some(missing)}; unexpected or repeated {_some(unexpected)}"
        )


def _some(names: Iterable[str]) -> str:
    """Name the first few of many, or say there are none."""
    names = sorted(names)
    shown = 5  # enough to see the pattern
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "none"
