"""The response around its items: what was asked for, repeated, and how far the answer is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openai.types import CompletionUsage
from openai.types.responses import Response, ResponseError, ResponseOutputItem, ResponseUsage
from openai.types.responses.response import IncompleteDetails
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from toolkit.request import SamplingParams
from toolkit.server.call import Call
from toolkit.server.protocol import ChatRequest
from toolkit.server.responses.protocol import ResponsesRequest

__all__ = ["Envelope", "as_usage"]

Status = Literal["in_progress", "completed", "incomplete", "failed"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """Makes the response of one call, whatever its state."""

    body: ResponsesRequest
    chat: ChatRequest
    call: Call
    params: SamplingParams

    def response(
        self,
        status: Status,
        output: Sequence[ResponseOutputItem] = (),
        *,
        usage: ResponseUsage | None = None,
        error: ResponseError | None = None,
    ) -> Response:
        """Return the response: every field of OpenAI's is there, null where it says nothing."""
        is_cut = status == "incomplete"
        fields: dict[str, Any] = {
            **dict.fromkeys(Response.model_fields),
            **self._asked(),
            "id": self.call.api_id,
            "object": "response",
            "created_at": self.call.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "model": self.call.model,
            "status": status,
            "incomplete_details": IncompleteDetails(reason="max_output_tokens") if is_cut else None,
            "error": error,
            "output": list(output),
            "usage": usage,
        }
        return Response.construct(**fields)

    def json(self, response: Response) -> bytes:
        """Return a response as it travels."""
        return response.model_dump_json(exclude_unset=True, by_alias=True).encode()

    def _asked(self) -> dict[str, Any]:
        body = self.body
        return {
            "background": False,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": body.max_tool_calls,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "prompt_cache_key": body.prompt_cache_key,
            "prompt_cache_retention": body.prompt_cache_retention,
            "reasoning": self._reasoning(),
            "safety_identifier": body.safety_identifier,
            "service_tier": "default",  # there is one
            "temperature": self.params.temperature,
            "text": self._text(),
            "tool_choice": self._tool_choice(),
            "tools": self._tools(),
            "top_logprobs": body.top_logprobs or 0,
            "top_p": self.params.top_p,
            "truncation": body.truncation or "disabled",
            "user": body.user,
        }

    def _reasoning(self) -> dict[str, Any]:
        asked = self.body.reasoning
        return {"effort": asked.effort if asked is not None else None, "summary": None}

    def _text(self) -> dict[str, Any]:
        asked = self.chat.response_format or {"type": "text"}
        form = {"type": asked["type"], **asked.get("json_schema", {})}
        verbosity = self.body.text.verbosity if self.body.text is not None else None
        return {"format": form, "verbosity": verbosity or "medium"}

    def _tools(self) -> list[dict[str, Any]]:
        names = ("name", "description", "parameters", "strict")
        functions = [tool["function"] for tool in self.chat.tools or ()]
        return [
            {"type": "function", **{name: function.get(name) for name in names}}
            for function in functions
        ]

    def _tool_choice(self) -> Any:
        """Return the choice one level flatter than a chat's."""
        choice = self.chat.tool_choice
        if choice is None:
            return "auto"
        if isinstance(choice, str):
            return choice
        if choice["type"] == "function":
            return _flat(choice)
        allowed = choice["allowed_tools"]
        tools = [_flat(each) for each in allowed["tools"]]
        return {"type": "allowed_tools", "mode": allowed["mode"], "tools": tools}


def _flat(choice: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "name": choice["function"]["name"]}


def as_usage(usage: CompletionUsage) -> ResponseUsage:
    """Say in this endpoint's words what a call used."""
    prompt = usage.prompt_tokens_details
    completion = usage.completion_tokens_details
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=(prompt.cached_tokens if prompt is not None else None) or 0,
            cache_write_tokens=0,  # what is cached here costs nothing and is not counted
        ),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(
            reasoning_tokens=(completion.reasoning_tokens if completion is not None else None) or 0
        ),
        total_tokens=usage.total_tokens,
    )
