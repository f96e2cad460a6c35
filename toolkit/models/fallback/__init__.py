"""Models that no spec describes, run by transformers' own code with the toolkit's paged attention.

``probe`` looks at an architecture without its weights, ``load_transformers_decoder`` loads them and
compares the paged path with the model's own before it returns the decoder. Both are loaded when
they are first used: transformers' modelling code takes a second or more to import, and a model
that a spec describes does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.models.fallback.spec import TransformersSpec

if TYPE_CHECKING:  # what __getattr__ gives, for those who read types
    from toolkit.models.fallback.decoder import TransformersDecoder
    from toolkit.models.fallback.loading import load_transformers_decoder
    from toolkit.models.fallback.probing import probe

__all__ = ["TransformersDecoder", "TransformersSpec", "load_transformers_decoder", "probe"]


def __getattr__(name: str) -> Any:
    if name == "TransformersDecoder":
        from toolkit.models.fallback.decoder import TransformersDecoder

        return TransformersDecoder
    if name == "load_transformers_decoder":
        from toolkit.models.fallback.loading import load_transformers_decoder

        return load_transformers_decoder
    if name == "probe":
        from toolkit.models.fallback.probing import probe

        return probe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
