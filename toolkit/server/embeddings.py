"""POST /v1/embeddings: texts or token ids in, a vector for each out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any, cast

from fastapi import Request as HttpRequest
from fastapi import Response
from openai.types import CreateEmbeddingResponse, Embedding
from openai.types.create_embedding_response import Usage

from toolkit.errors import InvalidRequest
from toolkit.pooling_params import Pooling, PoolingParams
from toolkit.request import Request
from toolkit.server.call import Call, in_thread_if_long, whole_body
from toolkit.server.generation import Ask, Generation
from toolkit.server.prompts import LengthLimit, shortened
from toolkit.server.protocol import EmbeddingRequest
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings

__all__ = ["embeddings"]

# A call puts so many steps' worth of tokens in line at a time: others' calls get their turn in
# between, and the engine's steps are full but for the last of them.
_STEPS_IN_LINE = 4


async def embeddings(body: EmbeddingRequest, http: HttpRequest) -> Response:
    """Turn every input into a vector."""
    served: ServedModel = http.app.state.served
    settings: ServerSettings = http.app.state.settings
    call = Call.of(http, body)
    params = _pooling_params(body, settings)
    inputs = _Inputs(body, served, settings)
    prompts = await in_thread_if_long(inputs.size, inputs.prompts)
    requests: list[Request] = []
    for part in _parts(prompts, served.engine.config.scheduler.max_num_batched_tokens):
        ask = Ask(
            prompts=part,
            params=params,
            origin=call.origin,
            arrival_s=call.arrival_s,
            priority=body.priority or 0,
            cache_salt=body.cache_salt,
            tags=body.tags,
        )
        generation = Generation(served.engine, ask, http.app.state.running)
        try:
            await generation.finish(http)
        except InvalidRequest as error:
            # To the engine an input is a prompt; here that is no field.
            if error.param == "prompt":
                raise type(error)(str(error), param="input") from error
            raise
        requests += generation.requests
    num_numbers = sum(len(request.embedding or b"") // 4 for request in requests)
    payload = await in_thread_if_long(num_numbers, lambda: _payload(body, call, requests))
    return whole_body(payload, call, requests[0])


def _pooling_params(body: EmbeddingRequest, settings: ServerSettings) -> PoolingParams:
    return PoolingParams(
        # The settings hold one of these, as they have checked.
        pooling=body.pooling or cast("Pooling", settings.embedding_pooling),
        normalize=body.normalize is not False,
        dimensions=body.dimensions,
    )


class _Inputs:
    """The inputs of a body, which may hold one or a list of them.

    Raises:
        InvalidRequest: there are none, or too many.
    """

    def __init__(
        self, body: EmbeddingRequest, served: ServedModel, settings: ServerSettings
    ) -> None:
        self._body = body
        self._tokenizer = served.tokenizer
        self._vocab_size = len(served.tokenizer)
        self._limit = LengthLimit(served, settings, num_output=0)
        given = body.input
        if not given:
            raise InvalidRequest("input is empty: give text or token ids", param="input")
        self._is_one = isinstance(given, str) or isinstance(given[0], int)
        self._inputs = cast("list[str | Sequence[int]]", [given] if self._is_one else given)
        if len(self._inputs) > settings.max_choices:
            raise InvalidRequest(
                f"input has {len(self._inputs)} entries; one call may have {settings.max_choices}",
                param="input",
            )

    @property
    def size(self) -> int:
        """Characters and tokens of all inputs."""
        return sum(map(len, self._inputs))

    def prompts(self) -> list[Sequence[int]]:
        """Return the tokens of each.

        Raises:
            InvalidRequest: one of them is empty, too long, or holds what is no token here.
        """
        return [self._prompt(index, given) for index, given in enumerate(self._inputs)]

    def _prompt(self, index: int, given: str | Sequence[int]) -> Sequence[int]:
        param = "input" if self._is_one else f"input[{index}]"
        if not given:
            raise InvalidRequest(f"{param} is empty: give text or token ids", param=param)
        token_ids: Sequence[int]
        room = self._body.truncate_prompt_tokens
        if isinstance(given, str):
            if room is None:
                self._limit.require_plausible(given, param)
            add_special = self._body.add_special_tokens is not False
            token_ids = self._tokenizer.encode(given, add_special_tokens=add_special)
            if not token_ids:
                raise InvalidRequest(f"{param}: the tokenizer makes nothing of it", param=param)
        else:
            token_ids = given
            self._require_known(token_ids, param)
        if room is not None:
            room = self._limit.num_tokens if room == -1 else room
            token_ids = shortened(token_ids, room, self._body.truncation_side)
        self._limit.require_fit(len(token_ids), param)
        return token_ids

    def _require_known(self, token_ids: Sequence[int], param: str) -> None:
        largest = max(token_ids)
        if largest >= self._vocab_size:
            raise InvalidRequest(
                f"{param}: token {largest} is outside this model's vocabulary of "
                f"{self._vocab_size} tokens. Token ids must come from the model's own tokenizer "
                "(POST /tokenize); LangChain's OpenAIEmbeddings sends those of tiktoken unless it "
                "is made with check_embedding_ctx_length=False, with which it sends text",
                param=param,
            )


def _parts(
    prompts: Sequence[Sequence[int]], num_batched_tokens: int
) -> Iterator[list[Sequence[int]]]:
    """Yield the prompts in their order, a few steps' worth of tokens at a time."""
    part: list[Sequence[int]] = []
    num_tokens = 0
    for prompt in prompts:
        part.append(prompt)
        num_tokens += len(prompt)
        if num_tokens >= _STEPS_IN_LINE * num_batched_tokens:
            yield part
            part, num_tokens = [], 0
    if part:
        yield part


def _payload(body: EmbeddingRequest, call: Call, requests: Sequence[Request]) -> bytes:
    """Return the answer as JSON."""
    num_tokens = sum(request.num_prompt_tokens for request in requests)
    answer = CreateEmbeddingResponse(
        object="list",
        data=[_embedding(body, index, request) for index, request in enumerate(requests)],
        model=call.model,
        usage=Usage(prompt_tokens=num_tokens, total_tokens=num_tokens),
    )
    # Without warnings: that base64 is no list of numbers, which the type promises.
    return answer.model_dump_json(exclude_unset=True, warnings="none").encode()


def _embedding(body: EmbeddingRequest, index: int, request: Request) -> Embedding:
    numbers: Any
    if body.encoding_format == "base64":
        numbers = b64encode(request.embedding or b"").decode()
    else:
        numbers = request.embedding_output.outputs.embedding
    return Embedding.model_construct(object="embedding", index=index, embedding=numbers)
