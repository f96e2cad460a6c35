"""From the body of a chat to what the engine is asked for: the way of all endpoints that chat.

Tools, form, reasoning, template and prompt are decided here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from toolkit.beam_search_params import BeamSearchParams
from toolkit.request import SamplingParams
from toolkit.server.call import Call, in_thread_if_long, num_characters
from toolkit.server.generation import Ask
from toolkit.server.parameters import chat_params, named_hooks, require_few_choices
from toolkit.server.prompts import Prompt, PromptEncoder
from toolkit.server.protocol import ChatRequest
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings
from toolkit.server.turns import ChatTurn
from toolkit.text import normal_messages

__all__ = ["ChatAsk", "PromptOf", "ask_for_chat", "last_content"]

# More than any tag of reasoning has, with the white space behind it.
_NUM_LAST_TOKENS = 16

PromptOf = Callable[[ChatRequest, Mapping[str, Any]], Prompt]


class ChatAsk(NamedTuple):
    """What the engine is asked for, and the turn that comes of it."""

    ask: Ask
    turn: ChatTurn


class _Prepared(NamedTuple):
    """What a body comes to."""

    prompt: Prompt
    turn: ChatTurn
    params: SamplingParams | BeamSearchParams


async def ask_for_chat(
    body: ChatRequest,
    call: Call,
    served: ServedModel,
    settings: ServerSettings,
    *,
    prompt_of: PromptOf | None = None,
) -> ChatAsk:
    """Return what to ask for.

    Args:
        body: The chat.
        call: Under which id.
        served: The model.
        settings: The server's limits.
        prompt_of: Writes the conversation out, with options of ``Tokenizer.render_chat``; left
            out, it is written as it is.

    Raises:
        InvalidRequest: a field is wrong, or the prompt does not fit.
    """
    write = prompt_of or PromptEncoder(served, settings).chat_prompt
    length = num_characters(
        body.messages, body.tools, body.tool_choice, body.documents, body.chat_template_kwargs
    )
    prompt, turn, params = await in_thread_if_long(
        length, lambda: _prepared(body, served, settings, write)
    )
    ask = Ask(
        prompts=[prompt.token_ids],
        params=params,
        origin=call.origin,
        arrival_s=call.arrival_s,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        tags=body.tags,
        hooks=named_hooks(body, settings),
        tokenize_s=[prompt.tokenize_s],
    )
    return ChatAsk(ask, turn)


def _prepared(
    body: ChatRequest, served: ServedModel, settings: ServerSettings, write: PromptOf
) -> _Prepared:
    params = chat_params(body, served.default_params, settings)
    require_few_choices(1, body.n or 1, settings)
    turn = ChatTurn.of(body, served.tokenizer)
    prompt = write(body, turn.template_options(body))
    turn = turn.after(_ending(prompt, body, served))
    return _Prepared(prompt, turn, turn.sampling(params))


def last_content(body: ChatRequest) -> str:
    """Return the text of the last message."""
    (last,) = normal_messages(body.messages[-1:])
    return str(last["content"])


def _ending(prompt: Prompt, body: ChatRequest, served: ServedModel) -> str:
    """Return that part of the prompt's end which the template or the client put there to go on."""
    if body.continue_final_message:
        return last_content(body)
    if body.add_generation_prompt is False:
        return ""
    if prompt.text is not None:
        return prompt.text[-100:]
    last = prompt.token_ids[-_NUM_LAST_TOKENS:]
    return served.tokenizer.decode(last, skip_special_tokens=False)
