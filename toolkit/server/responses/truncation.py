"""``truncation="auto"``: the oldest turns of a conversation give way until the rest fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import PromptTooLong
from toolkit.server.prompts import Prompt, PromptEncoder
from toolkit.server.protocol import ChatRequest
from toolkit.server.responses.protocol import ResponsesRequest
from toolkit.server.served import ServedModel

__all__ = ["Truncated"]

_SYSTEM = ("system", "developer")


class Truncated:
    """Writes a conversation out, without its beginning if need be.

    Args:
        encoder: Makes the prompt.
        body: Says how long the answer may become: it gets its room, if there is any.
        served: The model, which has so much room.
    """

    def __init__(self, encoder: PromptEncoder, body: ResponsesRequest, served: ServedModel) -> None:
        self._encoder = encoder
        self._room = served.max_model_len - (body.max_output_tokens or 1)

    def __call__(self, body: ChatRequest, options: Mapping[str, Any]) -> Prompt:
        """Return the prompt of the longest end of the conversation that fits.

        It begins with the system messages in front, and goes on with a turn of the user's.

        Raises:
            PromptTooLong: not even the last turn of the user's fits.
        """
        starts = _starts(body)
        few, many = 0, len(starts)  # cut at fewer starts, it is too long; at ``many``, it fits
        best = None
        while few < many:
            middle = (few + many) // 2
            found = self._fitting(_from(body, starts[middle]), options)
            if found is None:
                few = middle + 1
            else:
                best, many = found, middle
        # With what cannot be dropped, the prompt may still leave less room than was asked for.
        return best or self._encoder.chat_prompt(_from(body, starts[-1]), options)

    def _fitting(self, body: ChatRequest, options: Mapping[str, Any]) -> Prompt | None:
        try:
            prompt = self._encoder.chat_prompt(body, options)
        except PromptTooLong:
            return None
        return prompt if len(prompt.token_ids) <= self._room else None


def _num_leading(body: ChatRequest) -> int:
    """Count the system messages in front."""
    roles = [message["role"] for message in body.messages]
    return next((i for i, role in enumerate(roles) if role not in _SYSTEM), len(roles))


def _starts(body: ChatRequest) -> list[int]:
    """Return where a conversation may begin after its system messages: each turn of the user's."""
    first = _num_leading(body)
    turns = [i for i, message in enumerate(body.messages) if message["role"] == "user"]
    return [first, *(i for i in turns if i > first)]


def _from(body: ChatRequest, start: int) -> ChatRequest:
    """Return a chat without what stands between the system messages and a place."""
    messages = [*body.messages[: _num_leading(body)], *body.messages[start:]]
    return body.model_copy(update={"messages": messages})
