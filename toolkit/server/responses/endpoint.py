"""POST /v1/responses: input items in, the items of an answer out, kept for the next call."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request as HttpRequest
from fastapi import Response

from toolkit.request import SamplingParams
from toolkit.server.call import Call, whole_body
from toolkit.server.chat_ask import ask_for_chat
from toolkit.server.failures import Refusal
from toolkit.server.forms import fields_as_sent
from toolkit.server.generation import Generation
from toolkit.server.prompts import PromptEncoder
from toolkit.server.responses.answer import ResponseAnswer
from toolkit.server.responses.chat_body import as_chat, in_words_of_responses
from toolkit.server.responses.envelope import Envelope
from toolkit.server.responses.items import Item, as_items, as_messages, require_known_calls
from toolkit.server.responses.protocol import ResponsesRequest, require_supported
from toolkit.server.responses.retrieval import not_found
from toolkit.server.responses.store import ResponseStore, StoredResponse
from toolkit.server.responses.stream import EventStream
from toolkit.server.responses.truncation import Truncated
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings

__all__ = ["create_response"]


async def create_response(body: ResponsesRequest, http: HttpRequest) -> Response:
    """Answer input, whole or as a stream."""
    served: ServedModel = http.app.state.served
    settings: ServerSettings = http.app.state.settings
    store: ResponseStore = http.app.state.responses
    call = Call.of(http, body)
    require_supported(body)
    previous = _previous(body, store)
    new_items = as_items(body.input, store.find_item)
    items = [*(previous.conversation if previous is not None else ()), *new_items]
    require_known_calls(items)
    with in_words_of_responses():
        chat = as_chat(body, _messages(body, items))
        encoder = PromptEncoder(served, settings)
        prompt_of = Truncated(encoder, body, served) if body.truncation == "auto" else None
        ask, turn = await ask_for_chat(chat, call, served, settings, prompt_of=prompt_of)
        assert isinstance(ask.params, SamplingParams)  # the body has no beams
        generation = Generation(served.engine, ask, http.app.state.running)
        answer = ResponseAnswer(
            Envelope(body, chat, call, ask.params),
            generation,
            turn=turn,
            tokenizer=served.tokenizer,
            keep=_keeping(body, call, store, new_items, previous),
        )
        with fields_as_sent(chat), turn.errors_of_tools():
            if body.stream:
                pieces = await generation.stream(http.app.state.fanout)
                return EventStream(answer, pieces, call=call, generation=generation)
            await generation.finish(http)
    return whole_body(answer.whole(), call, generation.requests[0])


def _previous(body: ResponsesRequest, store: ResponseStore) -> StoredResponse | None:
    """Return the response that this one goes on from."""
    if body.previous_response_id is None:
        return None
    previous = store.get(body.previous_response_id)
    if previous is None:
        raise Refusal(
            f"previous {not_found(body.previous_response_id, store)}; send the conversation as "
            "input instead",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return previous


def _messages(body: ResponsesRequest, items: list[Item]) -> list[Item]:
    """Return the conversation as a chat's; instructions are of this call alone, in front."""
    messages = as_messages(items)
    if body.instructions is not None:
        messages.insert(0, {"role": "system", "content": body.instructions})
    return messages


def _keeping(
    body: ResponsesRequest,
    call: Call,
    store: ResponseStore,
    new_items: list[Item],
    previous: StoredResponse | None,
) -> Callable[[bytes], None]:
    """Return what stores a finished response, if the client wants that."""

    def keep(response: bytes) -> None:
        if body.is_stored:
            store.put(StoredResponse.of(call.api_id, response, new_items, previous))

    return keep
