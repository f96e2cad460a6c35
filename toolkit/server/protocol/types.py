"""The types of JSON values in a body: numbers are numbers, never texts or truth values."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr, WithJsonSchema
from pydantic_core import PydanticCustomError

from toolkit.sampling_params import MAX_LOGPROBS

__all__ = [
    "MAX_INT",
    "Arguments",
    "CountOfTop",
    "Flag",
    "Int",
    "Metadata",
    "Number",
    "Object",
    "Positive",
    "Signed",
    "Text",
    "TextMetadata",
    "TokenIds",
    "TopK",
    "User",
]

Flag = StrictBool
Int = StrictInt
Text = StrictStr
Object = dict[str, Any]
# JSON knows neither NaN nor Infinity; Python's parser lets them pass.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
# The tables of the record hold integers in as many bits, and so do tensors.
MAX_INT = 2**63 - 1
Positive = Annotated[int, Field(strict=True, ge=1, le=MAX_INT)]
# How many of the most likely tokens: each costs an entry per token of the answer.
CountOfTop = Annotated[int, Field(strict=True, ge=0, le=MAX_LOGPROBS)]
# The record keeps what describes a call for as long as the call's row, so none may be large.
# These are OpenAI's limits for metadata.
_MAX_KEYS = 16
_MAX_KEY_LENGTH = 64
_MAX_VALUE_LENGTH = 512
# vLLM's arguments of processors may be longer: they change the answer.
_MAX_ARGUMENTS_LENGTH = 8192


def _require_few_short(tags: dict[str, Any]) -> dict[str, Any]:
    _require_keys(tags)
    for name, value in tags.items():
        if not isinstance(value, (str, int, float, type(None))):
            raise _refused(f"{name!r} is no text, number, truth value or null")
        # A number too long to be written out is longer than any text that is allowed.
        if isinstance(value, int) and value.bit_length() > _MAX_VALUE_LENGTH:
            raise _refused(f"{name!r} has too many digits")
        if len(str(value)) > _MAX_VALUE_LENGTH:
            raise _refused(f"{name!r} has more than {_MAX_VALUE_LENGTH} characters")
    return tags


def _require_few(arguments: dict[str, Any]) -> dict[str, Any]:
    _require_keys(arguments)
    try:
        length = len(json.dumps(arguments))
    except ValueError:  # an integer of thousands of digits
        length = _MAX_ARGUMENTS_LENGTH + 1
    if length > _MAX_ARGUMENTS_LENGTH:
        raise _refused(f"it has more than {_MAX_ARGUMENTS_LENGTH} characters as JSON")
    return arguments


def _require_keys(tags: dict[str, Any]) -> None:
    if len(tags) > _MAX_KEYS:
        raise _refused(f"it has {len(tags)} keys, and {_MAX_KEYS} are allowed")
    longest = max(tags, key=len, default="")
    if len(longest) > _MAX_KEY_LENGTH:
        raise _refused(f"a key has {len(longest)} characters; {_MAX_KEY_LENGTH} are allowed")


def _refused(why: str) -> PydanticCustomError:
    return PydanticCustomError("too_large", "{why}", {"why": why})


_KEYS = {"maxProperties": _MAX_KEYS, "propertyNames": {"maxLength": _MAX_KEY_LENGTH}}
_SHORT_TEXT = {"type": "string", "maxLength": _MAX_VALUE_LENGTH}
_SHORT_NUMBER = {"type": "number", "minimum": -(2**63), "maximum": 2**63 - 1}
_SHORT = {"anyOf": [_SHORT_TEXT, _SHORT_NUMBER, {"type": "boolean"}, {"type": "null"}]}

# What describes a call: few, short and flat values.
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_require_few_short),
    WithJsonSchema({"type": "object", "additionalProperties": _SHORT, **_KEYS}),
]
TextMetadata = Annotated[
    dict[Text, Text],
    AfterValidator(_require_few_short),
    WithJsonSchema({"type": "object", "additionalProperties": _SHORT_TEXT, **_KEYS}),
]
# What processors are told; of any shape, but not of any size.
Arguments = Annotated[
    dict[str, Any],
    AfterValidator(_require_few),
    WithJsonSchema({"type": "object", "additionalProperties": True, **_KEYS}),
]
# Who calls: kept like metadata.
User = Annotated[StrictStr, Field(max_length=_MAX_VALUE_LENGTH)]
TokenIds = list[Annotated[StrictInt, Field(ge=0)]]
# Of either sign: a seed, a priority.
Signed = Annotated[int, Field(strict=True, ge=-MAX_INT - 1, le=MAX_INT)]
# Any vocabulary is smaller; larger numbers do not fit the tensors that carry them.
TopK = Annotated[int, Field(strict=True, ge=-1, le=2**31 - 1)]
