"""The body of ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from toolkit.server.protocol.sampling import MAX_SAMPLES, AnswerRequest
from toolkit.server.protocol.types import CountOfTop, Int, Text, TokenIds

__all__ = ["CompletionRequest"]


class CompletionRequest(AnswerRequest):
    """One prompt or several, and how they shall go on."""

    prompt: Text | list[Text] | TokenIds | list[TokenIds]
    # None is allowed to come out of it: with echo the answer is the prompt alone.
    max_tokens: Annotated[Int, Field(ge=0)] | None = None
    best_of: Annotated[Int, Field(ge=1, le=MAX_SAMPLES)] | None = None
    logprobs: CountOfTop | None = None
