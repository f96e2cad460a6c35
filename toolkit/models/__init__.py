"""One decoder for many families of models: read a checkpoint, run it over a paged KV cache.

``load_decoder`` gives a ``Decoder``; its ``spec`` says what is computed, ``FlatBatch`` what it is
fed, ``available_points`` where its activations can be seen and replaced.
"""

from toolkit.models.batch import FlatBatch
from toolkit.models.decoder import Decoder, num_parameters, random_decoder
from toolkit.models.dtypes import native_dtype
from toolkit.models.families import decoder_spec, find_family
from toolkit.models.hub import load_generation_defaults, read_config, resolve_files
from toolkit.models.points import Tap, available_points, check_point
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec, RopeSpec
from toolkit.models.weights import load_decoder, resolve_dtype

__all__ = [
    "AttentionSpec",
    "Decoder",
    "DecoderSpec",
    "FlatBatch",
    "MlpSpec",
    "NormSpec",
    "RopeSpec",
    "Tap",
    "available_points",
    "check_point",
    "decoder_spec",
    "find_family",
    "load_decoder",
    "load_generation_defaults",
    "native_dtype",
    "num_parameters",
    "random_decoder",
    "read_config",
    "resolve_dtype",
    "resolve_files",
]
