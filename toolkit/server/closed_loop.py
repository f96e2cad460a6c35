"""A small load to look at: a few clients that each ask again as soon as they have their answer."""

from __future__ import annotations

import asyncio
import threading
from random import Random

from httpx import HTTPError
from openai import APIError, APIStatusError, AsyncOpenAI

from toolkit.server.server_handle import ServerHandle

__all__ = ["ClosedLoop"]

# What the clients talk about: some of it is in everybody's prompt, so the prefix cache has work.
_SYSTEM = "You are a helpful assistant that translates English to Italian, and answers questions."
_QUESTIONS = (
    "Translate the following sentence from English to Italian: I love programming.",
    "Translate the following sentence from English to Italian: The cat drinks the milk.",
    "What is a paged KV cache?",
    "What is continuous batching?",
)
# A queue that is full, a server that is stopping: worth another try. What else is refused would be
# refused again.
_NOT_NOW = (429, 503)
_PATIENCE_S = 1.0


class ClosedLoop:
    """Load a server until told to stop: ``load(stop)`` returns once ``stop`` is set.

    Each client streams one answer after the other over HTTP, as any client would; an answer in
    progress is given up when the load stops. Raises ``openai.APIStatusError`` for a request that
    the server refuses for good.

    >>> ClosedLoop(server, num_clients=8)(stop)                      # doctest: +SKIP

    Args:
        server: Whom to ask.
        num_clients: How many requests are under way at once.
        max_tokens: The longest answer; lengths are drawn between a quarter of it and all of it.
        seed: Of questions and lengths.
    """

    def __init__(
        self, server: ServerHandle, *, num_clients: int = 6, max_tokens: int = 96, seed: int = 0
    ) -> None:
        self._server = server
        self._num_clients = num_clients
        self._max_tokens = max_tokens
        self._seed = seed

    def __call__(self, stop: threading.Event) -> None:
        """Ask until ``stop`` is set, or until the server has stopped."""
        asyncio.run(self._run(stop))

    async def _run(self, stop: threading.Event) -> None:
        async with self._server.async_client(max_retries=0) as client:
            clients = [
                asyncio.create_task(self._talk(client, Random(f"{self._seed}/{number}")))
                for number in range(self._num_clients)
            ]
            try:
                while not stop.is_set() and self._server.is_running:
                    await asyncio.sleep(0.05)
                    for done in (client for client in clients if client.done()):
                        done.result()  # raises what is wrong with the load itself
            finally:
                for each in clients:
                    each.cancel()
                await asyncio.gather(*clients, return_exceptions=True)

    async def _talk(self, client: AsyncOpenAI, rng: Random) -> None:
        while True:
            try:
                await self._ask(client, rng)
            except (APIError, HTTPError) as error:  # an answer may also break off in the middle
                if isinstance(error, APIStatusError) and error.status_code not in _NOT_NOW:
                    raise
                await asyncio.sleep(_PATIENCE_S)

    async def _ask(self, client: AsyncOpenAI, rng: Random) -> None:
        stream = await client.chat.completions.create(
            model=self._server.model_name,
            messages=[
                {"role": "system", "content": _SYSTEM},
                {"role": "user", "content": rng.choice(_QUESTIONS)},
            ],
            max_tokens=rng.randint(max(1, self._max_tokens // 4), self._max_tokens),
            stream=True,
            metadata={"load": "closed-loop"},
            extra_body={"ignore_eos": True},  # short answers would show nothing but prompts
        )
        async with stream:
            async for _ in stream:
                pass

    def __repr__(self) -> str:
        return f"ClosedLoop({self._num_clients} clients, up to {self._max_tokens} tokens)"
