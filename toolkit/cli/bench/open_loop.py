"""Send a workload to an OpenAI-compatible server at scheduled times, and note when tokens come.

Open loop: a request is sent when it is due, however many are under way, and its times count from
when it was due. A client that waits for answers before it sends, or that counts from when it came
round to sending, hides the queue that it measures.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from toolkit.cli.bench.metrics import RequestTimes
from toolkit.errors import ToolkitError
from toolkit.experiments import Workload

__all__ = ["Answer", "ask_all", "first_model"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request: its times, or why it failed."""

    lag_s: float  # how long after it was due it was sent
    times: RequestTimes | None = None
    num_cached_tokens: int = 0
    error: str | None = None


def first_model(base_url: str, api_key: str | None) -> str:
    """Return the name of the first model that the server lists; raises ToolkitError without one."""
    try:
        answer = httpx.get(f"{base_url}/v1/models", headers=_headers(api_key), timeout=30.0)
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, LookupError) as error:
        raise ToolkitError(f"{base_url}/v1/models names no model: {error}") from error


async def ask_all(
    workload: Workload,
    *,
    base_url: str,
    model: str,
    vocab_size: int,
    api_key: str | None = None,
    timeout_s: float = 600.0,
) -> list[Answer]:
    """Send every request to /v1/completions when it is due; return the answers in their order."""
    columns = workload.columns
    prompts = [workload.prompt_token_ids(k, vocab_size) for k in range(len(workload))]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=base_url, headers=_headers(api_key), timeout=timeout_s, limits=limits
    ) as client:
        origin_s = time.perf_counter()
        return await asyncio.gather(
            *(
                _ask(client, prompt, num_output, origin_s + due_s, model=model)
                for prompt, num_output, due_s in zip(
                    prompts,
                    columns.num_output_tokens.tolist(),
                    columns.due_s.tolist(),
                    strict=True,
                )
            )
        )


async def _ask(
    client: httpx.AsyncClient,
    prompt: tuple[int, ...],
    num_output_tokens: int,
    due_s: float,
    *,
    model: str,
) -> Answer:
    await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
    lag_s = time.perf_counter() - due_s
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": num_output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    arrivals_s: list[float] = []
    usage: dict[str, Any] = {}
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.is_error:
                text = (await response.aread()).decode(errors="replace")
                return Answer(lag_s, error=f"{response.status_code}: {text:.300}")
            async for chunk in _chunks(response):
                if "error" in chunk:
                    return Answer(lag_s, error=str(chunk["error"]))
                if chunk.get("choices"):
                    arrivals_s.append(time.perf_counter())
                usage = chunk.get("usage") or usage
    except (httpx.HTTPError, ValueError) as error:
        return Answer(lag_s, error=repr(error))
    if not arrivals_s:
        return Answer(lag_s, error="the stream held no output")
    times = RequestTimes(
        due_s=due_s,
        arrivals_s=tuple(arrivals_s),
        num_prompt_tokens=usage.get("prompt_tokens", len(prompt)),
        num_tokens=usage.get("completion_tokens"),
    )
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Answer(lag_s, times, cached)


async def _chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of each server-sent event until the stream says that it is done."""
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:"):
            continue
        if data == "[DONE]":
            return
        yield json.loads(data)


def _headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
