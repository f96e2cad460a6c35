"""The functions that a client declares, and which of them an answer may or must call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.errors import InvalidRequest

__all__ = ["Tool", "ToolChoice", "read_tool_choice", "read_tools"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Far more than OpenAI's 128, and few enough to be read while others wait.
_MAX_TOOLS = 1024
_MODES = ("none", "auto", "required")
# Where these stand, keys that are not among the properties may be meant.
_OPEN_KEYWORDS = frozenset(
    "$ref additionalProperties allOf anyOf dependentSchemas else if oneOf patternProperties "
    "propertyNames then unevaluatedProperties".split()
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A declared function; ``parameters`` is the JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any] | None
    is_strict: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """The schema that the arguments of a forced call are written by: always of an object.

        A model that is forced to call has nothing to gain from keys that nobody declared, so the
        object is closed unless its schema says otherwise; with ``strict`` all objects in it are.
        """
        schema = dict(self.parameters or {})
        if not _OPEN_KEYWORDS & schema.keys():
            schema["additionalProperties"] = False
        if "$ref" not in schema:
            schema.setdefault("type", "object")
        return _closed(schema) if self.is_strict else schema


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What an answer may or must call.

    ``named`` is required like ``required``, with one function. ``tools`` are those that may be
    called: all that are declared, unless the client allowed fewer.
    """

    mode: Literal["none", "auto", "required", "named"]
    tools: tuple[Tool, ...] = ()

    @property
    def is_forced(self) -> bool:
        """Whether the answer is a call, whatever the model would say."""
        return self.mode in ("required", "named")

    @property
    def names(self) -> tuple[str, ...]:
        """The functions that may be called."""
        return () if self.mode == "none" else tuple(tool.name for tool in self.tools)


def read_tools(tools: Sequence[Any] | None) -> tuple[Tool, ...]:
    """Check OpenAI's tool definitions.

    Raises:
        InvalidRequest: one is no function, has no proper name, or a name or schema is wrong; or
            there are too many.
    """
    if tools is not None and (isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence)):
        raise InvalidRequest("tools must be a list of tools", param="tools")
    if tools is not None and len(tools) > _MAX_TOOLS:
        raise InvalidRequest(
            f"tools has {len(tools)} tools, and {_MAX_TOOLS} are allowed", param="tools"
        )
    read = tuple(_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools or ()))
    known: set[str] = set()
    for index, tool in enumerate(read):
        if tool.name in known:
            place = f"tools[{index}].function.name"
            raise InvalidRequest(f"{place}: {tool.name!r} is declared twice", param=place)
        known.add(tool.name)
    return read


def read_tool_choice(choice: Any, tools: Sequence[Tool]) -> ToolChoice:
    """Read ``tool_choice``: none, auto, required, a function, or a list of allowed ones.

    Left out, it is "auto" if there are tools.

    Raises:
        InvalidRequest: it has another shape, or names what is not declared.
    """
    if choice is None:
        choice = "auto" if tools else "none"
    if isinstance(choice, str):
        if choice not in _MODES:
            raise _refused(f"must be one of {', '.join(_MODES)}, or an object; not {choice!r:.40}")
        return _chosen(choice, tools)
    if not isinstance(choice, Mapping):
        raise _refused("must be text or an object")
    if choice.get("type") == "function":
        return _chosen("named", [_declared(choice, {tool.name: tool for tool in tools})])
    if choice.get("type") == "allowed_tools":
        return _read_allowed(choice.get("allowed_tools"), tools)
    raise _refused(
        f"is of type {choice.get('type')!r:.40}; supported are 'function' and 'allowed_tools'"
    )


def _chosen(mode: Any, tools: Sequence[Tool]) -> ToolChoice:
    if mode in ("required", "named") and not tools:
        raise _refused(f"is {mode!r}, but there are no tools to call")
    return ToolChoice(mode, tuple(tools) if mode != "none" else ())


def _read_allowed(allowed: Any, tools: Sequence[Tool]) -> ToolChoice:
    listed = allowed.get("tools") if isinstance(allowed, Mapping) else None
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise _refused(
            'must hold {"mode": ..., "tools": [...]} in allowed_tools, with at least one tool'
        )
    if allowed.get("mode") not in ("auto", "required"):
        raise _refused(f"has the mode {allowed.get('mode')!r:.40}; it must be auto or required")
    by_name = {tool.name: tool for tool in tools}
    names = {_declared(each, by_name).name for each in listed}
    return _chosen(allowed["mode"], [tool for tool in tools if tool.name in names])


def _declared(choice: Any, by_name: Mapping[str, Tool]) -> Tool:
    """Return the tool that ``{"type": "function", "function": {"name": ...}}`` names."""
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise _refused('must name a function: {"type": "function", "function": {"name": ...}}')
    if name in by_name:
        return by_name[name]
    declared = ", ".join(by_name) or "none"
    raise _refused(f"names {name!r:.80}, which is not among the tools ({declared})"[:1000])


def _read_tool(tool: Any, place: str) -> Tool:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
        raise InvalidRequest(f"{place} must be a tool of type 'function'", param=place)
    if not isinstance(function, Mapping):
        raise InvalidRequest(f"{place}.function must be an object", param=f"{place}.function")
    name, spot = function.get("name"), f"{place}.function.name"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{spot} must be 1 to 64 letters, digits, _ or -, not {name!r:.80}", param=spot
        )
    for field, kinds, what in (
        ("description", str, "text"),
        ("parameters", Mapping, "a JSON schema: an object"),
        ("strict", bool, "true or false"),
    ):
        value = function.get(field)
        if value is not None and not isinstance(value, kinds):
            spot = f"{place}.function.{field}"
            raise InvalidRequest(f"{spot} must be {what}", param=spot)
    parameters = function.get("parameters")
    if parameters and parameters.get("type", "object") != "object":
        spot = f"{place}.function.parameters"
        raise InvalidRequest(f"{spot} must be of type 'object'", param=spot)
    return Tool(name, parameters, bool(function.get("strict")))


def _closed(schema: Any) -> Any:
    """Return a schema in which objects with properties have no others."""
    if isinstance(schema, Mapping):
        closed = {key: _closed(value) for key, value in schema.items()}
        is_object = schema.get("type") == "object" and isinstance(
            schema.get("properties", {}), Mapping
        )
        if is_object and not _OPEN_KEYWORDS & schema.keys():
            closed["additionalProperties"] = False
        return closed
    return [_closed(each) for each in schema] if isinstance(schema, list) else schema


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"tool_choice {why}", param="tool_choice")
