"""Fill a decoder from a checkpoint: each tensor into its slice, shard by shard.

Parameters are allocated once, fused and in their final dtype, and each checkpoint tensor is copied
into its place, so a model is never held twice. Every parameter must be covered exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from toolkit.models.mxfp4 import unpack_mxfp4
from toolkit.models.places import Place, find_places
from toolkit.models.sharding import Shard, find_cut
from toolkit.models.spec import DecoderSpec

__all__ = ["load_decoder", "read_decoder", "refuse_quantized", "resolve_dtype"]

_HEAD = "lm_head.weight"


def load_decoder(
    model: str,
    *,
    device: torch.device,
    ops: Ops,
    dtype: str | torch.dtype = "auto",
    max_model_len: int | None = None,
    revision: str | None = None,
    quantization: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Decoder:
    """Build the decoder of a local folder or hub id and load its weights.

    ``dtype`` "auto" is the checkpoint's, or float32 where ``device`` cannot compute in it.
    ``quantization`` "int8" or "int4" quantises the matrices of the linear maps, the head's too.
    ``progress`` shows a bar over the tensors. Raises ModelError: UnsupportedModel for an
    architecture without a family, CheckpointError for missing, unexpected or misshapen tensors.
    """
    config = read_config(model, revision, trust_remote_code)
    family, spec = find_family(config), decoder_spec(config, max_model_len)
    refuse_quantized(config, model)
    return read_decoder(
        spec,
        family,
        resolve_files(model, revision),
        device=device,
        ops=ops,
        dtype=resolve_dtype(dtype, config, model, device=device, revision=revision),
        quantization=quantization,
        progress=progress,
    )


def read_decoder(
    spec: DecoderSpec,
    family: Family,
    folder: Path,
    *,
    device: torch.device,
    ops: Ops,
    dtype: torch.dtype,
    quantization: str | None = None,
    shard: Shard | None = None,
    progress: bool = True,
) -> Decoder:
    """Build a decoder, or one process's ``shard`` of it, and fill it from a folder's files.

    Raises CheckpointError for missing, unexpected or misshapen tensors.
    """
    files = weight_files(folder)
    decoder = Decoder(spec, ops, dtype=dtype, device=device, shard=shard)
    places = find_places(decoder, family.names, shard)
    tensors = unpack_mxfp4(item for file in files for item in read_tensors(file))
    num_targets = len({place.target for place in places.values()})
    shown = {"desc": "Loading", "unit": "tensor", "disable": not progress}
    with tqdm(total=num_targets, **shown, miniters=0) as bar:  # 0: no thread of tqdm's draws it
        _fill(decoder, places, family, tensors, bar)
    decoder.pack(quantization)
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
    if quantization is not None and quantization.get("quant_method") != "mxfp4":
        raise UnsupportedModel(
            f"{model} is quantised ({quantization}); load a checkpoint in a floating type or MXFP4"
        )


def _stored_dtype(file: Path) -> torch.dtype:
    """Return the dtype of a checkpoint's first floating tensor."""
    floating = (tensor.dtype for _, tensor in read_tensors(file) if tensor.is_floating_point())
    return next(floating, torch.float32)


def _fill(
    decoder: Decoder,
    places: Mapping[str, Place],
    family: Family,
    tensors: Iterable[tuple[str, Tensor]],
    bar: tqdm,
) -> None:
    """Copy every tensor into its place; raise CheckpointError unless they match one to one."""
    missing = {place.target: name for name, place in places.items()}
    unexpected = []
    head: Tensor | None = None  # some rows of a tied model's, if the file holds one
    for name, tensor in tensors:
        # Checkpoints of the bare model lack the name of the part that it is of the whole.
        place = places.get(name) or places.get(family.prefix + name)
        if name == _HEAD and decoder.spec.tied_embeddings:
            head = _sampled_head(tensor, decoder)
            continue
        if place is None or place.target not in missing:
            unexpected.append(name)
            continue
        place.fill(name, tensor)
        del missing[place.target]
        bar.update()
    ignored = family.ignored
    unexpected = [name for name in unexpected if name in places or not name.endswith(ignored)]
    if missing or unexpected:
        raise CheckpointError(
            f"the tensors do not fit {family.name}: missing {_some(missing.values())}; "
            f"unexpected or repeated {_some(unexpected)}"
        )
    # A tied model's file may repeat the embedding as the head, and nothing else.
    rows = decoder.embed.weight[:: _sampling_step(decoder.embed.weight)]
    if head is not None and (head.shape != rows.shape or not torch.equal(head.to(rows), rows)):
        raise CheckpointError(
            f"the config ties the head to the embedding, and {_HEAD} is another matrix; set "
            "tie_word_embeddings to false in config.json"
        )


def _sampled_head(head: Tensor, decoder: Decoder) -> Tensor:
    """Return some rows of a head, those that are compared with the embedding's."""
    if decoder.shard is not None:
        own = torch.zeros_like(decoder.embed.weight, dtype=head.dtype, device=head.device)
        cut = find_cut(_HEAD, "", decoder.spec, decoder.shard)
        if cut is None or cut.shape(own) != head.shape:
            return head
        cut.fill(own, head)
        head = own
    return head[:: _sampling_step(head)].clone()


def _sampling_step(matrix: Tensor) -> int:
    """Return a step that takes some hundred rows of a large matrix: enough to tell two apart."""
    return 1 + len(matrix) // 128


def _some(names: Iterable[str]) -> str:
    """Name the first few of many, or say there are none."""
    names = sorted(names)
    shown = 5  # enough to see the pattern
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "none"
