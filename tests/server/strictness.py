"""Whether an answer is of openai's types to the letter: all fields, and documented extras alone.

openai's own models take what they do not know and fill in what is missing: a client is to survive
a newer server. Here each of them is copied into one that forbids both.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from toolkit.server.extras import EXTRAS, NULLS

# What OpenAI sends always, though its package's types let it be absent; a chunk has no usage
# unless it was asked for.
ALWAYS: Mapping[str, frozenset[str]] = {
    "ChatCompletion": frozenset({"usage", "system_fingerprint", "choices[].logprobs"}),
    "ChatCompletionChunk": frozenset({"system_fingerprint", "choices[].logprobs"}),
    "Completion": frozenset({"system_fingerprint", "choices[].logprobs"}),
}
_STRICT = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


def require_strict(endpoint: str, kind: Any, payload: Any) -> set[str]:
    """Fail unless a payload is of the type and holds nothing undocumented; return its extras.

    Raises:
        ValidationError: a field is missing, unknown or of another type; it says which.
    """
    strict_type(endpoint, kind).validate_json(json.dumps(payload))
    return places(payload) & set(EXTRAS.get(endpoint, {}))


@cache
def strict_type(endpoint: str, kind: Any) -> TypeAdapter[Any]:
    """The type's strict copy, with what the endpoint documents beyond it."""
    return TypeAdapter(_Copy(endpoint, kind).of(kind, "", ()))


def places(value: Any, place: str = "") -> set[str]:
    """Where a value holds something, as ``choices[].text``."""
    found = {place}
    if isinstance(value, list):
        for each in value:
            found |= places(each, place + "[]")
    elif isinstance(value, Mapping):
        for name, each in value.items():
            found |= places(each, _inside(place, name))
    return found


class _Copy:
    """Copies one answer's type and everything in it, place by place: extras belong to places."""

    def __init__(self, endpoint: str, kind: Any) -> None:
        self._extras = EXTRAS.get(endpoint, {})
        self._nulls = NULLS.get(endpoint, {})
        self._always = ALWAYS.get(getattr(kind, "__name__", ""), frozenset())

    def of(self, kind: Any, place: str, around: tuple[Any, ...]) -> Any:
        """Return a strict copy of the type that stands at a place."""
        copy = self._copy(kind, place, around)
        return copy | None if place in self._nulls else copy

    def _copy(self, kind: Any, place: str, around: tuple[Any, ...]) -> Any:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            # What contains itself is strict once: deeper down its own type has to do.
            return kind if kind in around else self._model(kind, place, (*around, kind))
        origin, args = get_origin(kind), get_args(kind)
        if hasattr(kind, "__value__"):  # a named alias
            return self._copy(kind.__value__, place, around)
        if origin is Annotated:  # openai's notes mean nothing to pydantic
            return self._copy(args[0], place, around)
        if origin in (Union, types.UnionType):
            return Union[tuple(self._copy(arg, place, around) for arg in args)]  # noqa: UP007
        if origin is list:
            return list[self.of(args[0], place + "[]", around)]  # type: ignore[misc]
        if origin is dict:
            return dict[args[0], self.of(args[1], place + "{}", around)]  # type: ignore[misc]
        return kind

    def _model(self, model: type[BaseModel], place: str, around: tuple[Any, ...]) -> Any:
        fields: dict[str, Any] = {}
        for name, field in model.model_fields.items():
            sent = field.alias or name
            inside = _inside(place, sent)
            is_required = field.is_required() or inside in self._always
            fields[name] = (
                self.of(field.annotation, inside, around),
                Field(... if is_required else None, alias=sent),
            )
        for extra in self._extras:
            where, _, name = extra.rpartition(".")
            if where == place:
                fields[name] = (Any, None)
        return create_model(model.__name__, __config__=_STRICT, **fields)


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
