"""The body of ``POST /v1/embeddings``: OpenAI's fields, vLLM's, and ``pooling``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit.pooling_params import Pooling
from toolkit.server.protocol.body import Body
from toolkit.server.protocol.types import Flag, Int, Metadata, Text, TokenIds

__all__ = ["EmbeddingRequest"]


class EmbeddingRequest(Body):
    """Texts or token ids, and what their vectors shall be like."""

    input: Text | list[Text] | TokenIds | list[TokenIds]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[Int, Field(ge=1)] | None = None
    pooling: Pooling | None = None
    normalize: Flag | None = None
    # How the numbers behind base64 are written; this is the one way there is.
    embed_dtype: Literal["float32"] | None = None
    endianness: Literal["little"] | None = None
    add_special_tokens: Flag | None = None
    # -1 is the longest prompt that the model takes.
    truncate_prompt_tokens: Annotated[Int, Field(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    # The tables of the record hold integers in as many bits.
    priority: Annotated[Int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    cache_salt: Annotated[Text, Field(min_length=1)] | None = None
    metadata: Metadata | None = None

    @property
    def tags(self) -> dict[str, Any]:
        """What policies and tables see of the caller."""
        return ({"user": self.user} if self.user is not None else {}) | (self.metadata or {})
