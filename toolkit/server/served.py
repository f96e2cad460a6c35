"""The model behind a server, as the endpoints see it: its engine, tokenizer, names and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from openai.types import Model

from toolkit.engine import Engine
from toolkit.server.failures import Refusal
from toolkit.text import Tokenizer

__all__ = ["ANY_NAME", "VERSION", "ServedModel"]

VERSION = version("llm-serving-toolkit")
# Among the served names: whatever name a client asks for is this model.
ANY_NAME = "*"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model with the names it answers to; the first one is its own."""

    engine: Engine
    tokenizer: Tokenizer
    root: str
    names: tuple[str, ...]
    max_model_len: int
    default_params: Mapping[str, Any]
    created: int

    @property
    def listed_names(self) -> tuple[str, ...]:
        """The names that ``/v1/models`` shows."""
        return tuple(name for name in self.names if name != ANY_NAME) or (self.root,)

    def echoed_name(self, asked: str | None) -> str:
        """Return the name to answer under: the one that was asked for.

        Raises:
            Refusal: 404, the model has no such name; the message lists those it has.
        """
        if asked is None:
            return self.listed_names[0]
        if asked in self.names or ANY_NAME in self.names:
            return asked
        served = ", ".join(map(repr, self.listed_names))
        raise Refusal(
            f"the model {asked!r} does not exist here; served: {served}",
            status=404,
            param="model",
            code="model_not_found",
        )

    def card(self, name: str) -> Model:
        """Describe the model in OpenAI's shape, with vLLM's additions."""
        return Model.model_validate(
            {
                "id": name,
                "object": "model",
                "created": self.created,
                "owned_by": "toolkit",
                "root": self.root,
                "parent": None,
                "max_model_len": self.max_model_len,
            }
        )
