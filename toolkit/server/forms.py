"""The form that an answer must have, by whichever of several names a body asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.errors import InvalidRequest, PromptTooLong
from toolkit.server.protocol import AnswerRequest, ChatRequest
from toolkit.structured_outputs import (
    StructuredOutputsParams,
    response_format_params,
    structured_outputs_params,
)

__all__ = ["fields_as_sent", "form_fields", "wanted_form"]

# vLLM's older names, by what they are now.
_GUIDED = {
    "guided_json": "json",
    "guided_json_object": "json_object",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}


def form_fields(body: AnswerRequest) -> list[str]:
    """Return the fields of a body that ask for a form."""
    names = [name for name in _GUIDED if getattr(body, name) not in (None, False)]
    if body.structured_outputs is not None:
        names.append("structured_outputs")
    if body.response_format is not None and body.response_format.get("type") != "text":
        names.append("response_format")
    return names


def wanted_form(body: AnswerRequest) -> StructuredOutputsParams | None:
    """Return the form that a body asks for, if any.

    Raises:
        InvalidRequest: it asks for several, or for one that cannot be; ``.param`` is the field.
    """
    names = form_fields(body)
    if len(names) > 1:
        raise InvalidRequest(
            f"{' and '.join(names)} ask for a form of the answer: give one of them", param=names[1]
        )
    if body.guided_whitespace_pattern is not None and names != ["guided_json"]:
        raise InvalidRequest(
            "guided_whitespace_pattern needs guided_json", param="guided_whitespace_pattern"
        )
    if not names:
        return None
    with fields_as_sent(body):
        if body.response_format is not None and names == ["response_format"]:
            return response_format_params(body.response_format)
        if names == ["structured_outputs"]:
            return structured_outputs_params(body.structured_outputs)
        return StructuredOutputsParams(
            **{_GUIDED[names[0]]: getattr(body, names[0])},
            whitespace_pattern=body.guided_whitespace_pattern,
        )


@contextmanager
def fields_as_sent(body: AnswerRequest) -> Iterator[None]:
    """Let errors of the engine name the field of the body rather than what it became."""
    try:
        yield
    except InvalidRequest as error:
        names = form_fields(body)
        sent = {
            "prompt": "messages" if isinstance(body, ChatRequest) else "prompt",
            "structured_outputs": names[0] if names else "structured_outputs",
        }
        param = sent.get(error.param or "")
        if param is None or param == error.param:
            raise
        kind = PromptTooLong if isinstance(error, PromptTooLong) else InvalidRequest
        message = str(error)
        if message.startswith(f"{error.param}:"):
            message = message.replace(f"{error.param}:", f"{param}:", 1)
        raise kind(message, param=param) from error
