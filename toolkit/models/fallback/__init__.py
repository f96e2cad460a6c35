"""Models that no spec describes, run by transformers' own code with the toolkit's paged attention.

``probe`` looks at an architecture without its weights, ``load_transformers_decoder`` loads them and
compares the paged path with the model's own before it returns the decoder.
"""

from toolkit.models.fallback.decoder import TransformersDecoder
from toolkit.models.fallback.loading import load_transformers_decoder
from toolkit.models.fallback.probe import probe
from toolkit.models.fallback.spec import TransformersSpec

__all__ = ["TransformersDecoder", "TransformersSpec", "load_transformers_decoder", "probe"]
