"""Validate answers against the types of the openai package, strictly.

A missing field or a value of another type is a problem. A field that OpenAI's types do not have is
none: clients ignore it. It is noted, unless it is one of those that many servers add.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pydantic

from toolkit.conformance.probe import Probe
from toolkit.conformance.verdicts import Failed

__all__ = ["require_keys", "require_shape"]

# Of vLLM, SGLang, llama.cpp and others, and known to clients of theirs.
VENDOR_FIELDS = frozenset(
    "stop_reason token_ids prompt_token_ids prompt_logprobs prompt_text kv_transfer_params "
    "ec_transfer_params routed_experts metrics reasoning reasoning_content matched_stop timings "
    "max_model_len root parent permission metadata hidden_states".split()
)


def require_shape(probe: Probe, model: type[pydantic.BaseModel], payload: Any) -> Any:
    """Return the payload as an object of the openai package.

    Raises:
        Failed: a field is missing, or has a value of another type.
    """
    try:
        parsed = model.model_validate_json(json.dumps(payload), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Failed(f"{model.__name__}.{place}: {first['msg']}", payload) from error
    unknown = sorted(set(_unknown(parsed, model.__name__)))
    if unknown:
        probe.note(f"fields that OpenAI's types do not have: {', '.join(unknown)}")
    return parsed


def require_keys(payload: dict[str, Any], *keys: str) -> None:
    """Raise Failed unless every key is there, be its value null."""
    missing = [key for key in keys if key not in payload]
    if missing:
        raise Failed(f"missing: {', '.join(missing)}", payload)


def _unknown(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, pydantic.BaseModel):
        for name in value.model_extra or {}:
            if name not in VENDOR_FIELDS:
                yield f"{place}.{name}"
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{place}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _unknown(item, place)
