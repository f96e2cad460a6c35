"""POST /v1/chat/completions: a conversation in, the assistant's next message out."""

from __future__ import annotations

from fastapi import Request as HttpRequest
from fastapi import Response

from toolkit.server.call import Call, in_thread_if_long, whole_answer
from toolkit.server.chat_answer import ChatAnswer
from toolkit.server.forms import fields_as_sent
from toolkit.server.generation import Ask, Generation
from toolkit.server.parameters import chat_params, named_hooks, require_few_choices
from toolkit.server.prompts import Prompt, PromptEncoder
from toolkit.server.protocol import ChatRequest
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings
from toolkit.server.sse import AnswerStream
from toolkit.server.turns import ChatTurn
from toolkit.text import normal_messages

__all__ = ["chat_completions"]

# More than any tag of reasoning has, with the white space behind it.
_NUM_LAST_TOKENS = 16


async def chat_completions(body: ChatRequest, http: HttpRequest) -> Response:
    """Answer a conversation, whole or as a stream."""
    served: ServedModel = http.app.state.served
    settings: ServerSettings = http.app.state.settings
    call = Call.of(http, body)
    params = chat_params(body, served.default_params, settings)
    require_few_choices(1, body.n or 1, settings)
    turn = ChatTurn.of(body, served.tokenizer)
    encoder = PromptEncoder(served, settings)
    prompt = await in_thread_if_long(
        sum(len(str(message.get("content"))) for message in body.messages),
        lambda: encoder.chat_prompt(body, turn.template_options(body)),
    )
    turn = turn.after(_ending(prompt, body, served))
    ask = Ask(
        prompts=[prompt.token_ids],
        params=turn.sampling(params),
        origin=call.origin,
        arrival_s=call.arrival_s,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        tags=body.tags,
        hooks=named_hooks(body, settings),
        tokenize_s=[prompt.tokenize_s],
    )
    generation = Generation(served.engine, ask, http.app.state.running)
    answer = ChatAnswer(body, call, served, generation, turn=turn, echo=_echo(body))
    with fields_as_sent(body), turn.errors_of_tools():
        if body.stream:
            pieces = await generation.stream(http.app.state.fanout)
            return AnswerStream(answer, pieces, call=call, generation=generation)
        await generation.finish(http)
    return whole_answer(answer.whole(), call, generation.requests[0])


def _ending(prompt: Prompt, body: ChatRequest, served: ServedModel) -> str:
    """Return that part of the prompt's end which the template or the client put there to go on."""
    if body.continue_final_message:
        return _last_content(body)
    if body.add_generation_prompt is False:
        return ""
    if prompt.text is not None:
        return prompt.text[-100:]
    last = prompt.token_ids[-_NUM_LAST_TOKENS:]
    return served.tokenizer.decode(last, skip_special_tokens=False)


def _echo(body: ChatRequest) -> str:
    """Return what the answer begins with: the turn that it continues, if that was asked for."""
    is_own = body.messages[-1].get("role") == "assistant"
    return _last_content(body) if body.echo and is_own else ""


def _last_content(body: ChatRequest) -> str:
    (last,) = normal_messages(body.messages[-1:])
    return str(last["content"])
