"""POST /v1/completions: text or token ids in, their continuation out."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request as HttpRequest
from fastapi import Response

from toolkit.server.call import Call, in_thread_if_long, whole_answer
from toolkit.server.completion_answer import CompletionAnswer
from toolkit.server.forms import fields_as_sent
from toolkit.server.generation import Ask, Generation
from toolkit.server.parameters import completion_params, named_hooks, require_few_choices
from toolkit.server.prompts import Prompt, PromptEncoder, listed_prompts
from toolkit.server.protocol import CompletionRequest
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings
from toolkit.server.sse import AnswerStream
from toolkit.text import Tokenizer

__all__ = ["completions"]


async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
    """Continue one prompt or several, whole or as a stream."""
    served: ServedModel = http.app.state.served
    settings: ServerSettings = http.app.state.settings
    call = Call.of(http, body)
    params = completion_params(body, served.default_params, settings)
    listed = listed_prompts(body.prompt)
    require_few_choices(len(listed), max(body.n or 1, body.best_of or 1), settings)
    encoder = PromptEncoder(served, settings)
    prompts = await in_thread_if_long(
        sum(map(len, listed)), lambda: encoder.completion_prompts(body, listed)
    )
    ask = Ask(
        prompts=[prompt.token_ids for prompt in prompts],
        params=params,
        origin=call.origin,
        arrival_s=call.arrival_s,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        tags=body.tags,
        hooks=named_hooks(body, settings),
        tokenize_s=[prompt.tokenize_s for prompt in prompts],
    )
    generation = Generation(served.engine, ask, http.app.state.running)
    echoes = _echoes(prompts, served.tokenizer) if body.echo else [""] * len(prompts)
    answer = CompletionAnswer(body, call, served.tokenizer, generation, echoes=echoes)
    with fields_as_sent(body):
        if body.stream:
            pieces = await generation.stream(http.app.state.fanout)
            return AnswerStream(answer, pieces, call=call, generation=generation)
        await generation.finish(http)
    return whole_answer(answer.whole(), call, generation.requests[0])


def _echoes(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> list[str]:
    """Return the prompts as text: as they were sent, or what their tokens stand for."""
    return [
        prompt.text if prompt.text is not None else tokenizer.decode(prompt.token_ids)
        for prompt in prompts
    ]
