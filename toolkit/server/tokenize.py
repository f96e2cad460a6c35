"""POST /tokenize and /detokenize, in vLLM's shapes: what a text costs, and what tokens spell."""

from __future__ import annotations

from fastapi import Request as HttpRequest
from fastapi import Response
from pydantic import BaseModel

from toolkit.errors import InvalidRequest
from toolkit.server.call import Call, in_thread_if_long, num_characters
from toolkit.server.protocol import DetokenizeRequest, TokenizeRequest
from toolkit.server.served import ServedModel
from toolkit.text import Tokenizer

__all__ = ["DetokenizeAnswer", "TokenizeAnswer", "detokenize", "tokenize"]


class TokenizeAnswer(BaseModel):
    """Tokens, how many, and how many the model has room for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeAnswer(BaseModel):
    """The text of tokens, under the name that it has in a completion's body."""

    prompt: str


async def tokenize(body: TokenizeRequest, http: HttpRequest) -> Response:
    """Return the tokens of a text or of a conversation."""
    served: ServedModel = http.app.state.served
    call = Call.of(http, body)
    token_ids = await in_thread_if_long(
        num_characters(body.prompt, body.messages, body.tools, body.chat_template_kwargs),
        lambda: _token_ids(served.tokenizer, body),
    )
    strings = served.tokenizer.pieces(token_ids) if body.return_token_strs else None
    answer = TokenizeAnswer(
        count=len(token_ids),
        max_model_len=served.max_model_len,
        tokens=token_ids,
        token_strs=strings,
    )
    return _sent(answer, call)


async def detokenize(body: DetokenizeRequest, http: HttpRequest) -> Response:
    """Return the text that tokens stand for, special tokens included."""
    served: ServedModel = http.app.state.served
    call = Call.of(http, body)
    num_known = len(served.tokenizer)
    for token_id in body.tokens:
        if token_id >= num_known:
            raise InvalidRequest(
                f"tokens: {token_id} is not in the vocabulary of {num_known} tokens", param="tokens"
            )
    text = await in_thread_if_long(
        len(body.tokens),
        lambda: served.tokenizer.decode(body.tokens, skip_special_tokens=False),
    )
    return _sent(DetokenizeAnswer(prompt=text), call)


def _token_ids(tokenizer: Tokenizer, body: TokenizeRequest) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest("give either prompt or messages", param="prompt")
    if body.messages is None:
        return tokenizer.encode(
            body.prompt or "", add_special_tokens=body.add_special_tokens is not False
        )
    text = tokenizer.render_chat(
        body.messages,
        tools=body.tools,
        add_generation_prompt=body.add_generation_prompt is not False,
        continue_final_message=bool(body.continue_final_message),
        template_kwargs=body.chat_template_kwargs,
    )
    # The template writes the special tokens.
    return tokenizer.encode(text, add_special_tokens=body.add_special_tokens is True)


def _sent(answer: BaseModel, call: Call) -> Response:
    return Response(
        answer.model_dump_json(), media_type="application/json", headers=dict(call.headers)
    )
