"""The bodies of ``POST /tokenize`` and ``POST /detokenize``, which are vLLM's."""

from __future__ import annotations

from toolkit.server.protocol.body import Body
from toolkit.server.protocol.chat import Message
from toolkit.server.protocol.types import Flag, Object, Text, TokenIds

__all__ = ["DetokenizeRequest", "TokenizeRequest"]


class TokenizeRequest(Body):
    """A text or a conversation whose tokens are wanted."""

    prompt: Text | None = None
    messages: list[Message] | None = None
    tools: list[Object] | None = None
    add_special_tokens: Flag | None = None
    add_generation_prompt: Flag | None = None
    continue_final_message: Flag | None = None
    chat_template_kwargs: Object | None = None
    return_token_strs: Flag | None = None


class DetokenizeRequest(Body):
    """Tokens whose text is wanted."""

    tokens: TokenIds
