"""Errors as OpenAI's API writes them: ``{"error": {"message", "type", "param", "code"}}``.

Whatever goes wrong on the way to an answer becomes a ``Refusal``, which knows its HTTP status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import Scope

from toolkit.errors import EngineError, InvalidRequest, PromptTooLong, WorkerFailed

__all__ = ["UNKNOWN_REQUEST", "Refusal", "as_invalid_body", "as_refusal"]

# The code of the error for a request that no record has.
UNKNOWN_REQUEST = "unknown_request"


# A message may quote what the client sent.
_MAX_MESSAGE_LENGTH = 1000


class Refusal(Exception):
    """A call that is answered with an error.

    Args:
        message: What is wrong, where, and what to do.
        status: The HTTP status.
        kind: OpenAI's ``type``.
        param: The field that is wrong.
        code: OpenAI's short name of the error, if it has one.
        headers: Sent with the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if len(message) > _MAX_MESSAGE_LENGTH:
            message = f"{message[:_MAX_MESSAGE_LENGTH]}..."
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def json(self) -> bytes:
        """The error object, as it travels."""
        return json.dumps(self.body).encode()

    def response(self, scope: Scope) -> JSONResponse:
        """Return the answer that carries the error, and leave a note for the log."""
        scope["state"]["failure"] = self.message
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


def as_invalid_body(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """Name the field of a body that is wrong and say why.

    Args:
        errors: What pydantic found, by ``loc``, ``type`` and ``msg``.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it does not parse")
        return Refusal(f"the body is not valid JSON: {reason}")
    if len(first["loc"]) == 1:
        return Refusal(
            "the body must be a JSON object, sent with the header content-type: application/json"
        )
    field = first["loc"][1]
    # A field of several types has an error for each of them, and every one is a way out.
    reasons = [str(error["msg"]) for error in errors if error["loc"][1:2] == (field,)]
    param = str(field)
    if len(first["loc"]) > 2 and isinstance(first["loc"][2], int):
        param += f"[{first['loc'][2]}]"
    return Refusal(f"{param}: {'; or '.join(dict.fromkeys(reasons[:4]))}", param=param)


def as_refusal(error: BaseException | None) -> Refusal:
    """Say in OpenAI's terms what an exception means; None is a request that was aborted."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, PromptTooLong):
        return Refusal(str(error), param=error.param, code="context_length_exceeded")
    if isinstance(error, InvalidRequest):
        return Refusal(str(error), param=error.param)
    if error is None or isinstance(error, EngineError):
        # Clients repeat what fails with 5xx by default; an aborted request is not to come back.
        # What a process wrote before it ended, such as a traceback, is not for clients.
        message = error.summary if isinstance(error, WorkerFailed) else str(error)
        return Refusal(
            message if error else "the request was aborted on the server's side",
            status=503,
            kind="server_error",
            code="engine_unavailable" if error else "request_aborted",
            headers={"x-should-retry": "false"},
        )
    return Refusal(
        f"the server failed: {type(error).__name__}: {error}",
        status=500,
        kind="server_error",
        code="internal_error",
        headers={"x-should-retry": "false"},
    )
