"""Whether an answer has the fields of openai's types, all of them, and documented extras alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, get_args

from pydantic import BaseModel

from toolkit.server.extras import EXTRAS, NULLS

# What OpenAI sends always, though its package's types let it be absent; a chunk has no usage
# unless it was asked for.
ALWAYS = {
    "chat.completion": {"usage", "system_fingerprint", "choices[].logprobs"},
    "chat.completion.chunk": {"system_fingerprint", "choices[].logprobs"},
    "text_completion": {"system_fingerprint", "choices[].logprobs"},
}
# In place of a null that the types do not allow.
STAND_INS = {"finish_reason": "stop", "token_logprobs[]": 0.0, "top_logprobs[]": {}}


def require_strict(endpoint: str, model: type[BaseModel], payload: dict[str, Any]) -> set[str]:
    """Fail unless a payload is of the type and holds nothing undocumented; return its extras."""
    payload = deepcopy(payload)
    for place in NULLS.get(endpoint, {}):
        _fill_nulls(payload, place.split("."))
    model.model_validate_json(json.dumps(payload), strict=True)
    extras = undeclared(model, payload)
    undocumented = extras - set(EXTRAS.get(endpoint, {}))
    assert not undocumented, f"not in EXTRAS: {undocumented}"
    present = _places(payload)
    for place in ALWAYS.get(str(payload.get("object")), ()):
        if place in present or (place.startswith("choices") and not payload["choices"]):
            continue
        raise AssertionError(f"{place} is missing")
    return extras


def undeclared(kind: Any, value: Any, place: str = "") -> set[str]:
    """The places in a value that its type does not know."""
    if isinstance(value, list):
        inner = next((arg for arg in _flat(kind) if _is_list(arg)), None)
        item = get_args(inner)[0] if inner is not None else Any
        return {found for each in value for found in undeclared(item, each, place + "[]")}
    model = next((arg for arg in _flat(kind) if _is_model(arg)), None)
    if not isinstance(value, Mapping) or model is None:
        return set()
    found: set[str] = set()
    for name, each in value.items():
        inside = f"{place}.{name}" if place else name
        if name in model.model_fields:
            found |= undeclared(model.model_fields[name].annotation, each, inside)
        else:
            found.add(inside)
    return found


def _flat(kind: Any) -> list[Any]:
    """A type, and the members of a union or an annotation."""
    if _is_model(kind) or _is_list(kind):
        return [kind]
    return [inner for arg in get_args(kind) for inner in _flat(arg)]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_list(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is list


def _places(value: Any, place: str = "") -> set[str]:
    if isinstance(value, list):
        return {found for each in value for found in _places(each, place + "[]")}
    if not isinstance(value, Mapping):
        return set()
    found = set()
    for name, each in value.items():
        inside = f"{place}.{name}" if place else name
        found |= {inside} | _places(each, inside)
    return found


def _fill_nulls(value: Any, path: list[str]) -> None:
    """Put something that the types allow in the place of a documented null."""
    head, *rest = path
    name = head.removesuffix("[]")
    if not isinstance(value, dict) or name not in value:
        return
    if rest:
        for each in value[name] if head.endswith("[]") else [value[name]]:
            _fill_nulls(each, rest)
    elif head.endswith("[]"):
        value[name] = [STAND_INS[head] if each is None else each for each in value[name] or ()]
    elif value[name] is None:
        value[name] = STAND_INS[head]
