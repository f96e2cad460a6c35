"""Random numbers by name: a function of (seed, name, place) and of nothing else.

Each quantity of a load draws from a stream of its own, and turns uniform numbers into its values
through its distribution's quantile function. So a load at another rate, or with other lengths, has
the same luck in all else, which is what comparisons want (common random numbers), and the first
requests of a longer load are those of a shorter one.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np

from toolkit.errors import InvalidConfig

__all__ = ["FIRST_TOKEN_ID", "Array", "token_ids", "uniform_at", "uniforms"]

Array = np.ndarray[Any, Any]

# The first ids of many vocabularies are special tokens.
FIRST_TOKEN_ID = 3
_WORD = 1 << 64


def uniforms(seed: int, name: str, num: int) -> Array:
    """Return the first ``num`` numbers of a stream, all of them above 0 and below 1.

    >>> float(uniforms(0, "arrivals", 5)[2]) == float(uniforms(0, "arrivals", 3)[2])
    True
    """
    return _unit(np.random.Philox(key=_key(seed, name)).random_raw(num))


def uniform_at(seed: int, name: str, place: int) -> float:
    """Return one number of a stream without those before it.

    >>> uniform_at(0, "group", 6) == float(uniforms(0, "group", 7)[6])
    True
    """
    # A count of Philox gives four numbers.
    bits = np.random.Philox(key=_key(seed, name), counter=place // 4)
    return float(_unit(bits.random_raw(place % 4 + 1))[-1])


def token_ids(seed: int, name: str, place: int, num: int, *, vocab_size: int) -> Array:
    """Return ``num`` random token ids, int64, none of them a special token of the first few.

    ``place`` tells prompts of one name apart: another place shares nothing, and fewer tokens at the
    same place are the beginning of more.

    Raises:
        InvalidConfig: the vocabulary holds no other tokens.
    """
    if vocab_size <= FIRST_TOKEN_ID:
        raise InvalidConfig(
            f"vocab_size={vocab_size} is too small: the ids below {FIRST_TOKEN_ID} are left out, "
            "for they are special tokens in many vocabularies"
        )
    # A place has 2**64 numbers before the next one's begin.
    bits = np.random.Philox(key=_key(seed, name), counter=place * _WORD)
    drawn: Array = _unit(bits.random_raw(num)) * (vocab_size - FIRST_TOKEN_ID)
    return FIRST_TOKEN_ID + drawn.astype(np.int64)


def _key(seed: int, name: str) -> int:
    digest = blake2b(f"{seed} {name}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def _unit(raw: Array) -> Array:
    # Half a step away from both ends, which a quantile function would send to infinity.
    return ((raw >> np.uint64(12)) + 0.5) * 2.0**-52
