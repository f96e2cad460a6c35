"""From a body to prompt tokens: encode, shorten where that is asked for, refuse what cannot fit.

A prompt that is far too long is refused by its characters, before it costs a tokenisation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from toolkit.errors import InvalidRequest, PromptTooLong
from toolkit.server.parameters import COMPLETION_TOKENS
from toolkit.server.protocol import AnswerRequest, ChatRequest, CompletionRequest
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings

__all__ = ["LengthLimit", "Prompt", "PromptEncoder", "listed_prompts", "shortened"]

# No token of a vocabulary stands for more characters, but for rare long ones, which are looked up;
# WordPiece takes words up to this length for one unknown token.
_CHARACTERS_PER_TOKEN = 100


class Prompt(NamedTuple):
    """A prompt's tokens, its text as it was sent, and the seconds that tokenising it took."""

    token_ids: Sequence[int]
    text: str | None = None
    tokenize_s: float = 0.0


def listed_prompts(prompt: str | Sequence[Any]) -> list[str | Sequence[int]]:
    """Return the prompts of a body, which may hold one or a list of them."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidRequest("prompt is empty: give text or token ids", param="prompt")
    return [prompt] if isinstance(prompt[0], int) else list(prompt)


def shortened(token_ids: Sequence[int], room: int, side: str | None) -> Sequence[int]:
    """Return as many tokens as have room: the first ones for the side "right", else the last.

    Raises:
        InvalidRequest: there is no room.
    """
    if room == 0:
        raise InvalidRequest(
            "truncate_prompt_tokens=0 leaves no prompt: keep a token, or give -1 to keep "
            "what has room",
            param="truncate_prompt_tokens",
        )
    if len(token_ids) <= room:
        return token_ids
    return token_ids[:room] if side == "right" else token_ids[-room:]


class LengthLimit:
    """The longest prompt that a server takes.

    Args:
        served: The model; its context is a limit in any case.
        settings: May have a lower one.
        num_output: Tokens that must have room behind the prompt.
    """

    def __init__(self, served: ServedModel, settings: ServerSettings, *, num_output: int) -> None:
        self._tokenizer = served.tokenizer
        self.max_model_len = served.max_model_len
        room = served.max_model_len - num_output
        asked = settings.max_prompt_tokens
        self.num_tokens = room if asked is None else min(asked, room)

    def require_plausible(self, text: str, param: str) -> None:
        """Refuse a text that has too many characters for any tokens that would fit."""
        if len(text) <= self.num_tokens * _CHARACTERS_PER_TOKEN:
            return
        longest = max(self._tokenizer.longest_token, _CHARACTERS_PER_TOKEN)
        if len(text) > self.num_tokens * longest:
            raise PromptTooLong(
                f"{param} has {len(text)} characters; {self.num_tokens} tokens, which is the "
                "longest prompt here, cannot hold them: shorten it",
                param=param,
            )

    def require_fit(self, num_tokens: int, param: str) -> None:
        """Refuse a prompt of too many tokens."""
        if num_tokens > self.num_tokens:
            raise PromptTooLong(
                f"{param} has {num_tokens} tokens; the longest prompt here has {self.num_tokens} "
                f"(max_model_len={self.max_model_len}): shorten it, or send "
                "truncate_prompt_tokens=-1",
                param=param,
            )


class PromptEncoder:
    """Makes prompts under a server's limits.

    Args:
        served: The model whose tokens they are.
        settings: Has the limits.
    """

    def __init__(self, served: ServedModel, settings: ServerSettings) -> None:
        self._tokenizer = served.tokenizer
        self._limit = LengthLimit(served, settings, num_output=1)

    def completion_prompts(
        self, body: CompletionRequest, prompts: Sequence[str | Sequence[int]]
    ) -> list[Prompt]:
        """Return the prompts of a completion, as ``listed_prompts`` gave them.

        Raises:
            InvalidRequest: one of them is longer than the server takes.
        """
        add_special = body.add_special_tokens is not False
        return [
            self._encoded(body, prompt, add_special_tokens=add_special, param="prompt")
            for prompt in prompts
        ]

    def chat_prompt(self, body: ChatRequest, options: Mapping[str, Any]) -> Prompt:
        """Return a conversation, written out with the model's template.

        Args:
            body: Has the messages.
            options: Of ``Tokenizer.render_chat``.

        Raises:
            InvalidRequest: the template refuses it, or it is longer than the server takes.
        """
        text = self._tokenizer.render_chat(body.messages, **options)
        # The template writes the special tokens; with both, they come twice.
        add_special = body.add_special_tokens is True
        return self._encoded(body, text, add_special_tokens=add_special, param="messages")

    def _encoded(
        self,
        body: AnswerRequest,
        prompt: str | Sequence[int],
        *,
        add_special_tokens: bool,
        param: str,
    ) -> Prompt:
        if isinstance(prompt, str):
            if body.truncate_prompt_tokens is None:
                self._limit.require_plausible(prompt, param)
            start_s = time.perf_counter()
            token_ids = self._tokenizer.encode(prompt, add_special_tokens=add_special_tokens)
            encoded = Prompt(token_ids, prompt, time.perf_counter() - start_s)
        else:
            encoded = Prompt(prompt)
        shown = self._truncated(body, encoded)
        self._limit.require_fit(len(shown.token_ids), param)
        return shown

    def _truncated(self, body: AnswerRequest, prompt: Prompt) -> Prompt:
        room = body.truncate_prompt_tokens
        if room is None:
            return prompt
        if room == -1:
            usual = COMPLETION_TOKENS if isinstance(body, CompletionRequest) else 1
            asked = body.max_completion_tokens or body.max_tokens or usual
            room = max(self._limit.max_model_len - asked, 1)
        kept = shortened(prompt.token_ids, room, body.truncation_side)
        is_whole = len(kept) == len(prompt.token_ids)
        return prompt if is_whole else Prompt(kept, None, prompt.tokenize_s)
