"""Turn a conversation into a prompt with the model's chat template, or with a plain one."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from toolkit.errors import InvalidRequest

__all__ = ["PLAIN_TEMPLATE", "render_chat"]

logger = logging.getLogger(__name__)

# For models that come without a template (mpt-7b, gpt2): one line a message, no special tokens.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] or '' }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

_warned: set[str] = set()


def render_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    chat_template: str | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    template_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """Return the prompt text of a conversation.

    Args:
        tokenizer: A transformers tokenizer.
        messages: ``{"role": ..., "content": ...}`` as in OpenAI's API; content may be a list of
            text parts, tool-call arguments a JSON string.
        tools: OpenAI's tool definitions.
        chat_template: A Jinja template to use instead of the model's.
        add_generation_prompt: Whether the prompt ends with the start of the assistant's turn.
        continue_final_message: Whether the last message is left open instead.
        template_kwargs: Further variables of the template.

    Raises:
        InvalidRequest: the conversation is empty, has a shape no template takes, or this model's
            template refuses it.
    """
    if not messages:
        raise InvalidRequest("messages is empty: give at least one message", param="messages")
    template = chat_template or getattr(tokenizer, "chat_template", None)
    if template is None:
        template = PLAIN_TEMPLATE
        _warn_once(str(getattr(tokenizer, "name_or_path", "this model")))
    normal = [_normal(message, index) for index, message in enumerate(messages)]
    try:
        rendered: str = tokenizer.apply_chat_template(
            normal,
            tools=list(tools) if tools else None,
            chat_template=template,
            add_generation_prompt=add_generation_prompt and not continue_final_message,
            continue_final_message=continue_final_message,
            tokenize=False,
            **dict(template_kwargs or {}),
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"the model's chat template refused this conversation: {error}", param="messages"
        ) from error
    return rendered


def _normal(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Bring one message into the form that templates are written for."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidRequest(
            f"messages[{index}] must be an object with a role", param=f"messages[{index}]"
        )
    normal = {**message, "content": _text(message.get("content"), index)}
    calls = message.get("tool_calls")
    if calls:
        if not isinstance(calls, Sequence) or not all(map(_is_call, calls)):
            place = f"messages[{index}].tool_calls"
            raise InvalidRequest(f"{place} must be a list of function calls", param=place)
        normal["tool_calls"] = [_with_parsed_arguments(call) for call in calls]
    return normal


def _text(content: Any, index: int) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(parts):
            return "".join(texts)
    raise InvalidRequest(
        f"messages[{index}].content must be text, or a list of text parts",
        param=f"messages[{index}].content",
    )


def _is_call(call: Any) -> bool:
    return isinstance(call, Mapping) and isinstance(call.get("function") or {}, Mapping)


def _with_parsed_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI sends a call's arguments as a JSON string; templates print a mapping."""
    function = dict(call.get("function") or {})
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        # Not JSON: the template shows the model what it wrote.
        with contextlib.suppress(ValueError):
            function["arguments"] = json.loads(arguments) if arguments.strip() else {}
    return {**call, "function": function}


def _warn_once(name: str) -> None:
    if name not in _warned:
        _warned.add(name)
        logger.warning(
            "%s has no chat template; conversations are written as 'Role: content' lines "
            "(pass chat_template= to choose another)",
            name,
        )
