"""What /openapi.json says of answers: their types by path, and the one shape of every error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from openai.types import Completion, CompletionChoice, CreateEmbeddingResponse, Embedding, Model
from openai.types.chat import ChatCompletion
from openai.types.completion_choice import Logprobs
from openai.types.responses import Response as OpenAIResponse
from pydantic import BaseModel

from toolkit.server.tokenize import DetokenizeAnswer, TokenizeAnswer

__all__ = ["ERRORS", "documented_answers"]


class Error(BaseModel):
    """What is wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer whose status is an error."""

    error: Error


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"]
    data: list[Model]


# openai's types, with the nulls and the texts that its API sends and they leave out.


class TextLogprobs(Logprobs):
    """Log-probabilities of a text; with echo, nothing predicts its first token."""

    token_logprobs: list[float | None] | None = None  # type: ignore[assignment]
    top_logprobs: list[dict[str, float] | None] | None = None  # type: ignore[assignment]


class TextChoice(CompletionChoice):
    """One text."""

    logprobs: TextLogprobs | None = None


class TextCompletion(Completion):
    """The answer of /v1/completions."""

    choices: list[TextChoice]  # type: ignore[assignment]


class Vector(Embedding):
    """One vector, as numbers or as their bytes in base64."""

    embedding: list[float] | str  # type: ignore[assignment]


class Vectors(CreateEmbeddingResponse):
    """The answer of /v1/embeddings."""

    data: list[Vector]  # type: ignore[assignment]


# FastAPI documents a 422 of its own unless errors are documented already.
ERRORS: Mapping[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The call is wrong; the message says why."},
    "5XX": {"model": ErrorAnswer, "description": "The server failed, or cannot answer now."},
}

_EVENT = {
    "type": "object",
    "description": "One event of a stream.",
    "properties": {"data": {"type": "string", "description": "A chunk as JSON; last, [DONE]."}},
    "required": ["data"],
}
_EVENTS: Mapping[str, Any] = {"text/event-stream": {"schema": _EVENT}}
_SERIES: Mapping[str, Any] = {"text/plain": {}, "application/openmetrics-text": {}}
_ANSWERS: Mapping[str, dict[str, Any]] = {
    "/metrics": {"content": _SERIES, "description": "All series, in Prometheus' formats."},
    "/v1/models": {"model": ModelList},
    "/v1/models/{name:path}": {"model": Model},
    "/v1/chat/completions": {"model": ChatCompletion, "content": _EVENTS},
    "/v1/completions": {"model": TextCompletion, "content": _EVENTS},
    "/v1/embeddings": {"model": Vectors},
    "/v1/responses": {"model": OpenAIResponse, "content": _EVENTS},
    "/v1/responses/{response_id:path}": {"model": OpenAIResponse},
    "/tokenize": {"model": TokenizeAnswer},
    "/detokenize": {"model": DetokenizeAnswer},
}


def documented_answers(path: str) -> dict[int | str, dict[str, Any]]:
    """Return what a path answers when all is well, for FastAPI's ``responses``."""
    return {200: dict(_ANSWERS[path])} if path in _ANSWERS else {}
