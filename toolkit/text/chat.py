"""Turn a conversation into a prompt with the model's chat template, or with a plain one.

A template that refuses a conversation as it is gets it in other words (``toolkit.text.treatments``)
before the conversation is refused; whatever a template raises is an ``InvalidRequest``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from toolkit.errors import InvalidRequest
from toolkit.text.messages import Message, normal_messages
from toolkit.text.treatments import TREATMENTS, calls_as_text, needs_of, tools_in_words

__all__ = ["PLAIN_TEMPLATE", "render_chat", "template_of"]

logger = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

# For models that come without a template (mpt-7b, gpt2): one line a message, no special tokens.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] or '' }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

_warned: set[str] = set()
# Of one process; one that renders with more templates has other worries.
_MAX_KNOWN = 4096
# How many treatments a template needed for a conversation with these needs.
_treatments: dict[tuple[str, frozenset[str]], int] = {}
_wants_parts: dict[str, bool] = {}
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_TOOLS = re.compile(r"\btools\b")
_PROBE = "a probe of this template"
# What transformers' apply_chat_template would take for its own.
_RESERVED = frozenset(
    "add_generation_prompt chat_template continue_final_message conversation max_length messages "
    "padding return_assistant_tokens_mask return_dict return_tensors tokenize tokenizer_kwargs "
    "tools truncation".split()
)


class Traits(NamedTuple):
    """What a template's text tells about it."""

    shows_tools: bool
    shows_calls: bool
    knows_developer: bool
    wants_parts: bool


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
        messages: ``{"role": ..., "content": ...}`` as in OpenAI's API; content may be null or a
            list of text parts, tool-call arguments a JSON string.
        tools: OpenAI's tool definitions. A template that does not show them gets them in words,
            in a system message.
        chat_template: A Jinja template to use instead of the model's.
        add_generation_prompt: Whether the prompt ends with the start of the assistant's turn.
        continue_final_message: Whether the last message is left open instead.
        template_kwargs: Further variables of the template.

    Raises:
        InvalidRequest: the conversation is empty, has a shape no template takes, or this model's
            template refuses it in all words that are tried.
    """
    said = normal_messages(messages)
    reserved = _RESERVED.intersection(template_kwargs or ())
    if reserved:
        raise InvalidRequest(
            f"{min(reserved)!r} is no variable for a template; it has a field of its own",
            param="chat_template_kwargs",
        )
    template = chat_template or template_of(tokenizer, has_tools=bool(tools))
    if template is None:
        template = PLAIN_TEMPLATE
        _warn_once(str(getattr(tokenizer, "name_or_path", "this model")))
    options = {
        **dict(template_kwargs or {}),
        "tools": list(tools) if tools else None,
        "chat_template": template,
        "add_generation_prompt": add_generation_prompt and not continue_final_message,
        "continue_final_message": continue_final_message,
        "tokenize": False,
    }
    try:
        traits = _traits(tokenizer, template)
        said = _in_its_terms(said, traits, tools or ())
        return _treated(tokenizer, said, template, traits, options)
    except Exception as error:
        raise InvalidRequest(
            f"the model's chat template refused this conversation: {error}"[:500], param="messages"
        ) from error


def template_of(tokenizer: Any, *, has_tools: bool = False) -> str | None:
    """Return a tokenizer's own template; some have one more for conversations with tools."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        named = template.get("tool_use") if has_tools else None
        template = named or template.get("default")
    return template


def _in_its_terms(
    messages: Sequence[Message], traits: Traits, tools: Sequence[Mapping[str, Any]]
) -> list[Message]:
    """Say what a template has no words for in those that it has."""
    said = list(messages)
    if not traits.knows_developer:
        said = [
            {**each, "role": "system"} if each["role"] == "developer" else each for each in said
        ]
    if not traits.shows_calls:
        said = [calls_as_text(each) for each in said]
    if tools and not traits.shows_tools:
        said = tools_in_words(said, tools)
    return said


def _treated(
    tokenizer: Any,
    messages: Sequence[Message],
    template: str,
    traits: Traits,
    options: Mapping[str, Any],
) -> str:
    """Render with the gentlest treatment that the template takes; raise what it said to none."""
    key = (template, needs_of(messages))
    num_known = _treatments.get(key, 0)
    first: Exception | None = None
    said: Sequence[Message] = ()
    treated: Sequence[Message] = messages
    for index, treatment in enumerate(TREATMENTS):
        treated = treatment.apply(treated)
        if index < num_known or treated == said:
            continue
        said = treated
        try:
            rendered = _render(tokenizer, said, options, in_parts=traits.wants_parts)
        except Exception as error:
            # What it says of the conversation as it came is what its author understands.
            first = first or error
            continue
        if index > num_known:
            logger.info("the chat template refused a conversation; %s", treatment.does)
            _remember(_treatments, key, index)
        return rendered
    assert first is not None
    raise first


def _render(
    tokenizer: Any, messages: Sequence[Message], options: Mapping[str, Any], *, in_parts: bool
) -> str:
    if in_parts:
        messages = [
            {**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages
        ]
    return str(tokenizer.apply_chat_template(list(messages), **options))


def _traits(tokenizer: Any, template: str) -> Traits:
    if template not in _wants_parts:
        _remember(_wants_parts, template, _shows_only_parts(tokenizer, template))
    code = _COMMENT.sub("", template)
    return Traits(
        shows_tools=_TOOLS.search(code) is not None,
        shows_calls="tool_calls" in code,
        knows_developer="developer" in code,
        wants_parts=_wants_parts[template],
    )


def _shows_only_parts(tokenizer: Any, template: str) -> bool:
    """Whether a template shows content only if it is a list of parts: try it, with one message."""
    probe = [{"role": "user", "content": _PROBE}]
    for in_parts in (False, True):
        options = {"chat_template": template, "tokenize": False}
        try:
            shown = _render(tokenizer, probe, options, in_parts=in_parts)
        except Exception:
            continue
        if _PROBE in shown:
            return in_parts
    return False


def _remember(known: dict[K, V], key: K, value: V) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known[key] = value


def _warn_once(name: str) -> None:
    if name not in _warned:
        _warned.add(name)
        logger.warning(
            "%s has no chat template; conversations are written as 'Role: content' lines "
            "(pass chat_template= to choose another)",
            name,
        )
