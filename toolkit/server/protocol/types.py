"""The types of JSON values in a body: numbers are numbers, never texts or truth values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictInt, StrictStr

from toolkit.sampling_params import MAX_LOGPROBS

__all__ = [
    "MAX_INT",
    "CountOfTop",
    "Flag",
    "Int",
    "Number",
    "Object",
    "Positive",
    "Signed",
    "Text",
    "TokenIds",
    "TopK",
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
TokenIds = list[Annotated[StrictInt, Field(ge=0)]]
# Of either sign: a seed, a priority.
Signed = Annotated[int, Field(strict=True, ge=-MAX_INT - 1, le=MAX_INT)]
# Any vocabulary is smaller; larger numbers do not fit the tensors that carry them.
TopK = Annotated[int, Field(strict=True, ge=-1, le=2**31 - 1)]
