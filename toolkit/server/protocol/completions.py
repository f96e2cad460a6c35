"""The body of ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from toolkit.server.protocol.sampling import AnswerRequest
from toolkit.server.protocol.types import MAX_INT, CountOfTop, Int, Positive, Text, TokenIds

__all__ = ["CompletionRequest"]


class CompletionRequest(AnswerRequest):
    """One prompt or several, and how they shall go on."""

    prompt: Text | list[Text] | TokenIds | list[TokenIds]
    # With echo it may be 0: the answer is the prompt alone.
    max_tokens: Annotated[Int, Field(ge=0, le=MAX_INT)] | None = None
    best_of: Positive | None = None
    logprobs: CountOfTop | None = None

    @property
    def ranks_samples(self) -> bool:
        """Whether more samples are drawn than shown: the best of them come back."""
        return self.best_of is not None and self.best_of != (self.n or 1)

    @property
    def shows_prompt_alone(self) -> bool:
        """Whether the answer is the prompt, with its log-probabilities perhaps."""
        return bool(self.echo) and self.max_tokens == 0 and not self.max_completion_tokens
