"""One decoder for many families of models: read a checkpoint, run it over a paged KV cache.

``open_model`` describes a checkpoint and then loads it: as a ``Decoder``, or where no family
describes it as a ``TransformersDecoder``. ``load_decoder`` gives a ``Decoder`` alone; its
``spec`` says what is computed, ``FlatBatch`` what it is fed, ``available_points`` where its
activations can be seen and replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.models import fallback
from toolkit.models.attention import ProbsRows
from toolkit.models.batch import FlatBatch
from toolkit.models.decoder import Decoder, num_parameters, random_decoder
from toolkit.models.dtypes import native_dtype
from toolkit.models.fallback import TransformersSpec
from toolkit.models.families import decoder_spec, find_family
from toolkit.models.hub import load_generation_defaults, read_config, resolve_files
from toolkit.models.points import Tap, available_points, check_point, row_shape
from toolkit.models.source import ModelSource, open_model
from toolkit.models.spec import AttentionSpec, DecoderSpec, KVShape, MlpSpec, NormSpec, RopeSpec
from toolkit.models.weights import load_decoder, resolve_dtype

if TYPE_CHECKING:  # what __getattr__ gives, for those who read types
    from toolkit.models.fallback import TransformersDecoder

__all__ = [
    "AttentionSpec",
    "Decoder",
    "DecoderSpec",
    "FlatBatch",
    "KVShape",
    "MlpSpec",
    "ModelSource",
    "NormSpec",
    "ProbsRows",
    "RopeSpec",
    "Tap",
    "TransformersDecoder",
    "TransformersSpec",
    "available_points",
    "check_point",
    "decoder_spec",
    "find_family",
    "load_decoder",
    "load_generation_defaults",
    "native_dtype",
    "num_parameters",
    "open_model",
    "random_decoder",
    "read_config",
    "resolve_dtype",
    "resolve_files",
    "row_shape",
]


def __getattr__(name: str) -> Any:
    if name == "TransformersDecoder":  # loads transformers' modelling code
        return fallback.TransformersDecoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
