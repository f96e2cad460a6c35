"""The ways in which models write calls of functions, and which one a chat template teaches.

A format knows where a call may begin, how to read it, and how to write it: the latter makes the
grammar of a forced call (``toolkit.text.call_grammar``).
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from typing import Protocol

from toolkit.text.call_reader import CallLog, read_arguments, read_calls
from toolkit.text.growing_text import Reading

__all__ = [
    "CallLayout",
    "HermesFormat",
    "LlamaFormat",
    "MistralFormat",
    "PlainJsonFormat",
    "ToolFormat",
    "find_tool_format",
]

_LETTERS = string.ascii_letters + string.digits
_NAME = _LETTERS + "_-."
# Ids are names, not secrets; the seeded generators of sampling stay untouched.
_ids = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class CallLayout:
    """How calls are written: ``begin``, the arguments as JSON, ``end``; all in one bracket."""

    begin: str  # "NAME" stands for the function's name, in JSON if it is quoted there
    end: str
    separator: str
    open_all: str = ""
    close_all: str = ""

    def begin_of(self, name: str) -> str:
        """Return what stands before the arguments of a function's call."""
        return self.begin.replace("NAME", name)


class ToolFormat(Protocol):
    """One way to write calls."""

    markers: tuple[str, ...]
    """Texts that begin a call, wherever they stand."""
    starts: str
    """Characters that may begin a call at the start of an answer."""
    specials: tuple[str, ...]
    """Texts that a vocabulary may hold as special tokens, and that must be seen."""
    one: CallLayout
    """How a lone call is written."""
    many: CallLayout
    """How several are."""

    def read(self, log: CallLog) -> Reading[None]:
        """Read calls from where one may begin; ``log.settled`` tells how far they went."""
        ...

    def new_id(self) -> str:
        """Return the id of a new call."""
        ...


class HermesFormat:
    """``<tool_call>`` around each JSON object: Hermes, Qwen, and the bundled model."""

    markers: tuple[str, ...] = ("<tool_call>",)
    starts = ""
    specials: tuple[str, ...] = ("<tool_call>", "</tool_call>")
    one = many = CallLayout(
        '<tool_call>\n{"name": "NAME", "arguments": ', "}\n</tool_call>", separator="\n"
    )

    def read(self, log: CallLog) -> Reading[None]:
        """Read one pair of tags; the closing one may be missing."""
        yield from log.source.accept("<tool_call>")
        yield from log.source.skip_space()
        if (yield from read_calls(log)):
            yield from log.source.skip_space()
            if (yield from log.source.accept("</tool_call>", or_begun=True)):
                log.settle()

    def new_id(self) -> str:
        """Return an id as OpenAI's are."""
        return _new_id("call_", 24)


class LlamaFormat:
    """``{"name": ..., "parameters": ...}``, bare or after ``<|python_tag|>``: Llama 3."""

    markers: tuple[str, ...] = ("<|python_tag|>",)
    starts = "{"
    specials: tuple[str, ...] = ("<|python_tag|>",)
    one = many = CallLayout('{"name": "NAME", "parameters": ', "}", separator="; ")

    def read(self, log: CallLog) -> Reading[None]:
        """Read objects, with semicolons between them."""
        yield from log.source.accept("<|python_tag|>")
        yield from log.source.skip_space()
        yield from read_calls(log, separators=";")

    def new_id(self) -> str:
        """Return an id as OpenAI's are."""
        return _new_id("call_", 24)


class MistralFormat:
    """``[TOOL_CALLS]`` before a JSON list, or before each ``name[ARGS]{...}``.

    Args:
        is_named: Whether the model was taught the second, which newer ones are.
    """

    markers: tuple[str, ...] = ("[TOOL_CALLS]",)
    starts = ""
    specials: tuple[str, ...] = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")

    def __init__(self, *, is_named: bool) -> None:
        if is_named:
            self.one = self.many = CallLayout("[TOOL_CALLS]NAME[ARGS]", "", separator="")
        else:
            self.one = self.many = CallLayout(
                '{"name": "NAME", "arguments": ',
                "}",
                separator=", ",
                open_all="[TOOL_CALLS][",
                close_all="]",
            )

    def read(self, log: CallLog) -> Reading[None]:
        """Read what one marker introduces, in either way."""
        source = log.source
        yield from source.accept("[TOOL_CALLS]")
        yield from source.skip_space()
        if not (yield from source.more()):
            return
        if source.text[source.position] in "[{":
            yield from read_calls(log)
            return
        name = yield from source.word(_NAME)
        if (yield from source.accept("[CALL_ID]")):
            yield from source.word(_LETTERS)
        yield from source.accept("[ARGS]")
        yield from source.skip_space()
        yield from read_arguments(log, name)

    def new_id(self) -> str:
        """Return an id of nine letters and digits: Mistral's templates refuse others."""
        return _new_id("", 9)


class PlainJsonFormat:
    """``{"name": ..., "arguments": ...}`` or a list of such as the whole answer."""

    markers: tuple[str, ...] = ()
    starts = "{[`"
    specials: tuple[str, ...] = ()
    one = CallLayout('{"name": "NAME", "arguments": ', "}", separator="")
    many = CallLayout(
        '{"name": "NAME", "arguments": ', "}", separator=", ", open_all="[", close_all="]"
    )

    def read(self, log: CallLog) -> Reading[None]:
        """Read the object or the list, which may stand in a fence of Markdown."""
        fenced = yield from log.source.accept("```")
        if fenced:
            yield from log.source.accept("json")
        yield from log.source.skip_space()
        is_whole = yield from read_calls(log, separators=",;")
        if is_whole and fenced:
            yield from log.source.skip_space()
            if (yield from log.source.accept("```", or_begun=True)):
                log.settle()

    def new_id(self) -> str:
        """Return an id as OpenAI's are."""
        return _new_id("call_", 24)


def find_tool_format(template: str | None) -> ToolFormat:
    """Return the format that a chat template writes calls in; plain JSON if it shows none."""
    template = template or ""
    if "[TOOL_CALLS]" in template:
        return MistralFormat(is_named="[ARGS]" in template)
    if "<tool_call>" in template:
        return HermesFormat()
    has_calls = "tool_calls" in template
    if "<|python_tag|>" in template or (has_calls and '"parameters": ' in template):
        return LlamaFormat()
    return PlainJsonFormat()


def _new_id(prefix: str, count: int) -> str:
    return prefix + "".join(_ids.choices(_LETTERS, k=count))
