"""POST /v1/chat/completions: a conversation in, the assistant's next message out."""

from __future__ import annotations

from fastapi import Request as HttpRequest
from fastapi import Response

from toolkit.server.call import Call, whole_answer
from toolkit.server.chat_answer import ChatAnswer
from toolkit.server.chat_ask import ask_for_chat, last_content
from toolkit.server.forms import fields_as_sent
from toolkit.server.generation import Generation
from toolkit.server.protocol import ChatRequest
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings
from toolkit.server.sse import AnswerStream

__all__ = ["chat_completions"]


async def chat_completions(body: ChatRequest, http: HttpRequest) -> Response:
    """Answer a conversation, whole or as a stream."""
    served: ServedModel = http.app.state.served
    settings: ServerSettings = http.app.state.settings
    call = Call.of(http, body)
    ask, turn = await ask_for_chat(body, call, served, settings)
    generation = Generation(served.engine, ask, http.app.state.running)
    answer = ChatAnswer(body, call, served, generation, turn=turn, echo=_echo(body))
    with fields_as_sent(body), turn.errors_of_tools():
        if body.stream:
            pieces = await generation.stream(http.app.state.fanout)
            return AnswerStream(answer, pieces, call=call, generation=generation)
        await generation.finish(http)
    return whole_answer(answer.whole(), call, generation.requests[0])


def _echo(body: ChatRequest) -> str:
    """Return what the answer begins with: the turn that it continues, if that was asked for."""
    is_own = body.messages[-1].get("role") == "assistant"
    return last_content(body) if body.echo and is_own else ""
