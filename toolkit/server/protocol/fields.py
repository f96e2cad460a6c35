"""The fields that bodies do not declare: which are refused, which are harmless, which are unknown.

One table for all endpoints. A field moves out of it when it is honoured: a body declares it then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from toolkit.errors import InvalidRequest

__all__ = ["HARMLESS", "REFUSED", "Refused", "ignored_fields"]


class Refused(NamedTuple):
    """Why a field is not supported, and the values of it that ask for nothing."""

    reason: str
    neutral: tuple[Any, ...] = ()


_TEXT_ONLY = "this server takes and makes text only"
_NO_EMBEDS = "prompts are text or token ids"

REFUSED: Mapping[str, Refused] = {
    # OpenAI's.
    "audio": Refused(_TEXT_ONLY),
    "function_call": Refused("it is deprecated: use tool_choice", ("none",)),
    "functions": Refused("it is deprecated: use tools", ([],)),
    "modalities": Refused(_TEXT_ONLY, (["text"], [])),
    "moderation": Refused("answers are not moderated here"),
    "suffix": Refused("the models served here continue text, they do not fill gaps", ("",)),
    "web_search_options": Refused("the server searches nothing"),
    # vLLM's.
    "chat_template": Refused(
        "templates of clients are not run: give chat_template to serve(), and variables of the "
        "template in chat_template_kwargs"
    ),
    "ec_transfer_params": Refused("caches are not moved between servers", ({},)),
    "kv_transfer_params": Refused("caches are not moved between servers", ({},)),
    "logits_processors": Refused("choose processors of the server by name in processors", ([],)),
    "logprob_token_ids": Refused("use top_logprobs or logprobs", ([],)),
    "media_io_kwargs": Refused(_TEXT_ONLY, ({},)),
    "mm_processor_kwargs": Refused(_TEXT_ONLY, ({},)),
    "prompt_embeds": Refused(_NO_EMBEDS, ([],)),
    "prompt_logprob_start": Refused("prompt_logprobs covers the whole prompt", (0,)),
    "prompt_logprob_token_ids": Refused("use prompt_logprobs", ([],)),
    "repetition_detection": Refused("it is not supported", ({},)),
    "return_prompt_text": Refused("use echo, or /detokenize with return_token_ids", (False,)),
    "return_token_offsets": Refused("use logprobs, which has text_offset", (False,)),
    "routed_experts_prompt_start": Refused("experts are not reported", (0,)),
    "spaces_between_special_tokens": Refused("the text is what the tokens stand for", (True,)),
    "stream_interval": Refused("pieces are sent as they come", (1,)),
    "thinking_token_budget": Refused("use max_tokens"),
    "watermarking": Refused("answers are not watermarked here", (False,)),
    # Names that other servers have for what stands elsewhere here.
    "beam_width": Refused("with use_beam_search, n is the number of beams"),
}

# Accounts, billing, routing and hints: OpenAI's specification lets a server do nothing about them.
# Of vLLM's, what says how to go about a thing that is not asked for by itself.
HARMLESS = frozenset(
    {
        "guided_decoding_backend",
        "mm_payload",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "return_mm_kwargs",
        "safety_identifier",
        "service_tier",
        "session_id",
        "store",
        "verbosity",
        # In stream_options: whether padding hides how long a piece is.
        "stream_options.include_obfuscation",
    }
)


def ignored_fields(body: BaseModel) -> list[str]:
    """Return the fields that nobody knows, those of nested objects too; they have no effect.

    Raises:
        InvalidRequest: a field is known, changes the answer and is not supported.
    """
    unknown = []
    for name, value in _undeclared(body):
        refused = REFUSED.get(name)
        if refused is None:
            if name not in HARMLESS:
                unknown.append(name)
        elif value is not None and not _is_neutral(value, refused.neutral):
            raise InvalidRequest(f"{name} is not supported: {refused.reason}", param=name)
    return unknown


def _undeclared(body: BaseModel, prefix: str = "") -> list[tuple[str, Any]]:
    """Return what a body holds beyond its declared fields, nested bodies included."""
    found = [(prefix + name, value) for name, value in (body.model_extra or {}).items()]
    for name in type(body).model_fields:
        value = getattr(body, name)
        if isinstance(value, BaseModel):
            found += _undeclared(value, f"{prefix}{name}.")
    return found


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    # 0 and False, 1 and True are equal in Python but not in JSON.
    return any(value == each and type(value) is type(each) for each in neutral)
