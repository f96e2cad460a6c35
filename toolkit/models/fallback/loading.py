"""Load a checkpoint into transformers' own model, and see that it computes the same paged."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from toolkit.errors import CheckpointError
from toolkit.kernels import Ops
from toolkit.models.checkpoint import weight_files
from toolkit.models.fallback.attention import PAGED
from toolkit.models.fallback.check import check
from toolkit.models.fallback.decoder import TransformersDecoder
from toolkit.models.fallback.spec import TransformersSpec

__all__ = ["load_transformers_decoder"]

logger = logging.getLogger(__name__)


def load_transformers_decoder(
    folder: Path,
    config: PreTrainedConfig,
    spec: TransformersSpec,
    *,
    ops: Ops,
    dtype: torch.dtype,
    device: torch.device,
    max_model_len: int | None = None,
    quantization: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> TransformersDecoder:
    """Load the weights in ``folder`` for what models.fallback.probing described.

    Says in one line of the log that transformers' own code runs, and what that costs. Raises
    CheckpointError for missing or misshapen tensors, UnsupportedModel if the paged path computes
    other logits than transformers does.
    """
    weight_files(folder)
    with _progress_bars(progress):
        model = _load(folder, config, dtype, trust_remote_code)
    # Tensor by tensor, so that no two copies of the model are ever whole.
    model = model.requires_grad_(False).to(device)
    spec = dataclasses.replace(spec, max_model_len=max_model_len or spec.max_model_len)
    decoder = TransformersDecoder(model, spec, ops, dtype=dtype, device=device).eval()
    check(model, decoder)
    decoder.pack(quantization)
    logger.warning(
        "no spec describes %s: transformers' own code runs it with the toolkit's paged attention, "
        "without fused kernels",
        spec.family,
    )
    return decoder


def _load(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype, trust_remote_code: bool
) -> PreTrainedModel:
    """Load the model; raise CheckpointError unless the files hold all of it."""
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=config,
            dtype=dtype,
            attn_implementation=PAGED,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are in the report, and refused below
            output_loading_info=True,
        )
    except Exception as error:  # transformers and safetensors have no common error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"transformers cannot load {folder} ({reason:.300})") from error
    _require_complete(report, folder)
    return model


def _require_complete(report: dict[str, Any], folder: Path) -> None:
    misshapen = [name for name, *_ in report["mismatched_keys"]]
    for kind, names in (("missing", report["missing_keys"]), ("misshapen", misshapen)):
        if names:
            first = ", ".join(sorted(names)[:5])
            raise CheckpointError(f"{folder} has {len(names)} {kind} tensors: {first}, ...")


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """Hide transformers' bars for a while unless ``shown``; they have one switch for all."""
    if shown or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
