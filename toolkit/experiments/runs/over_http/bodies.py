"""What each request of a workload says to a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.client.load import Item
from toolkit.errors import InvalidConfig

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["PROMPTS", "Speech", "items"]

PROMPTS = ("token_ids", "text")
# Short and frequent, so about a token each in most vocabularies.
_WORDS = (
    "the of and to in is was for on that with as by at from his be an are this which or have had "
    "not but one all were they can more when there their been has will who two so about out up"
).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """How requests are worded.

    Args:
        api: "completions" or "chat".
        model: The model's name at the server.
        vocab_size: Token ids of prompts are below it.
        prompts: "token_ids", which only /v1/completions takes and not every server, or "text".
        decode: Makes the text of token ids, ``llm.tokenizer.decode`` say; without one each id
            becomes an English word, and the server says how many tokens that was.
        ignore_eos: Whether to ask for ``max_tokens`` tokens whatever the model says: vLLM's
            extension, which others refuse or overlook.
        extra_body: Further fields of each request.

    Raises:
        InvalidConfig: chat with token ids, no such kind of prompt, or fields that are no JSON.
    """

    api: str
    model: str
    vocab_size: int
    prompts: str
    decode: Callable[[Sequence[int]], str] | None = None
    ignore_eos: bool = True
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prompts not in PROMPTS:
            raise InvalidConfig(f"prompts={self.prompts!r} is not one of {', '.join(PROMPTS)}")
        if self.api == "chat" and self.prompts == "token_ids":
            raise InvalidConfig('a chat is text: prompts="text", or api="completions"')
        try:
            json.dumps(dict(self.extra_body), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidConfig(
                f"extra_body={self.extra_body!r:.200} must be fields of a JSON object: {error}"
            ) from error

    def body(self, prompt_token_ids: Sequence[int], num_output_tokens: int) -> bytes:
        """Return the JSON of one request."""
        fields: dict[str, Any] = {
            "model": self.model,
            "max_tokens": num_output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.ignore_eos:
            fields["ignore_eos"] = True
        if self.prompts == "token_ids":
            fields["prompt"] = list(prompt_token_ids)
        elif self.api == "completions":
            fields["prompt"] = self._text(prompt_token_ids)
        else:
            message = {"role": "user", "content": self._text(prompt_token_ids)}
            fields["messages"] = [message]
        return json.dumps({**fields, **self.extra_body}).encode()

    def _text(self, token_ids: Sequence[int]) -> str:
        if self.decode is not None:
            return self.decode(token_ids)
        return " ".join(_WORDS[token_id % len(_WORDS)] for token_id in token_ids)


def items(workload: Workload, speech: Speech) -> Iterator[Item]:
    """Yield the requests of a workload, made one at a time."""
    table = workload.table
    columns = ("arrival_id", "due_s", "after", "num_output_tokens")
    for arrival_id, due_s, after, num_output in zip(
        *(table[name].tolist() for name in columns), strict=True
    ):
        prompt = workload.prompt_token_ids(arrival_id, speech.vocab_size)
        yield Item(arrival_id, due_s, after, speech.body(prompt, num_output))
