"""Open a checkpoint: say what it is before its weights are loaded, then load them.

A config that a family describes becomes a Decoder; any other goes to transformers' own code with
our paged attention (models.fallback).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedConfig

from toolkit.errors import UnsupportedModel
from toolkit.kernels import Ops
from toolkit.models import fallback
from toolkit.models.decoder import Decoder, num_parameters
from toolkit.models.families import decoder_spec, find_family
from toolkit.models.hub import read_config, resolve_files
from toolkit.models.spec import DecoderSpec
from toolkit.models.weights import load_decoder, refuse_quantized, resolve_dtype

__all__ = ["ModelSource", "open_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A checkpoint that is described and not loaded."""

    model: str  # a local folder or hub id
    revision: str | None
    trust_remote_code: bool
    config: PreTrainedConfig = field(repr=False)
    spec: DecoderSpec | fallback.TransformersSpec
    num_parameters: int
    dtype: torch.dtype
    device: torch.device
    ops: Ops
    quantization: str | None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters once they are loaded."""
        return self.num_parameters * self.dtype.itemsize

    def load(
        self, *, max_model_len: int | None = None, progress: bool = True
    ) -> Decoder | fallback.TransformersDecoder:
        """Load the weights for sequences of up to ``max_model_len`` tokens.

        Raises ModelError: CheckpointError for tensors that do not fit, UnsupportedModel for an
        architecture that computes something else when it is paged.
        """
        if isinstance(self.spec, fallback.TransformersSpec):
            return fallback.load_transformers_decoder(
                resolve_files(self.model, self.revision),
                self.config,
                self.spec,
                ops=self.ops,
                dtype=self.dtype,
                device=self.device,
                max_model_len=max_model_len,
                quantization=self.quantization,
                trust_remote_code=self.trust_remote_code,
                progress=progress,
            )
        return load_decoder(
            self.model,
            device=self.device,
            ops=self.ops,
            dtype=self.dtype,
            max_model_len=max_model_len,
            revision=self.revision,
            quantization=self.quantization,
            trust_remote_code=self.trust_remote_code,
            progress=progress,
        )


def open_model(
    model: str,
    *,
    device: torch.device,
    ops: Ops,
    dtype: str | torch.dtype = "auto",
    quantization: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ModelSource:
    """Describe the model in a local folder or of a hub id; only its settings are read.

    Raises ModelError, UnsupportedModel for what neither a spec nor transformers' own code can do.
    """
    config = read_config(model, revision, trust_remote_code)
    refuse_quantized(config, model)
    spec = _describe(config, trust_remote_code)
    count = num_parameters(spec, ops) if isinstance(spec, DecoderSpec) else spec.num_parameters
    return ModelSource(
        model=model,
        revision=revision,
        trust_remote_code=trust_remote_code,
        config=config,
        spec=spec,
        num_parameters=count,
        dtype=resolve_dtype(dtype, config, model, device=device, revision=revision),
        device=device,
        ops=ops,
        quantization=quantization,
    )


def _describe(
    config: PreTrainedConfig, trust_remote_code: bool
) -> DecoderSpec | fallback.TransformersSpec:
    try:
        find_family(config)
    except UnsupportedModel:
        undescribed = "none of the toolkit's own families describes it"
    else:
        try:
            return decoder_spec(config)
        except UnsupportedModel as error:
            undescribed = str(error)
    if getattr(config, "quantization_config", None) is not None:
        name = next(iter(config.architectures or ()), None) or config.model_type
        raise UnsupportedModel(f"{name} is quantised, and {undescribed}")
    try:
        return fallback.probe(config, trust_remote_code=trust_remote_code)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{error}; and {undescribed}") from error
