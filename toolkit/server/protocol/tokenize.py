"""The bodies of ``POST /tokenize`` and ``POST /detokenize``, which are vLLM's."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from toolkit.server.protocol.chat import Message
from toolkit.server.protocol.types import Flag, Object, Text, TokenIds

__all__ = ["DetokenizeRequest", "TokenizeRequest"]


class TokenizeRequest(BaseModel):
    """A text or a conversation whose tokens are wanted."""

    model_config = ConfigDict(extra="allow")

    model: Text | None = None
    prompt: Text | None = None
    messages: list[Message] | None = None
    tools: list[Object] | None = None
    add_special_tokens: Flag | None = None
    add_generation_prompt: Flag | None = None
    continue_final_message: Flag | None = None
    chat_template_kwargs: Object | None = None
    return_token_strs: Flag | None = None


class DetokenizeRequest(BaseModel):
    """Tokens whose text is wanted."""

    model_config = ConfigDict(extra="allow")

    model: Text | None = None
    tokens: TokenIds
