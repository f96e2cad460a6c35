"""Name the content of a block: the hash of its tokens, chained to the block before it.

Two blocks have the same name only if their tokens and everything before them agree, so a key
found in the index is a prefix found in the cache (vLLM's automatic prefix caching).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

__all__ = ["block_hash", "block_hashes", "root_hash"]

# 128 bits: a collision would silently serve another prompt's keys and values.
_DIGEST_BYTES = 16


def root_hash(salt: str | None) -> bytes:
    """Return the parent of a first block; different salts never share blocks."""
    return blake2b((salt or "").encode(), digest_size=_DIGEST_BYTES).digest()


def block_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Return the name of the full block ``token_ids`` that follows ``parent``."""
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=_DIGEST_BYTES).digest()


def block_hashes(
    token_ids: Sequence[int], block_size: int, *, salt: str | None = None
) -> list[bytes]:
    """Return the names of all full blocks of a sequence.

    >>> a = block_hashes([1, 2, 3, 4, 5], 2)
    >>> b = block_hashes([1, 2, 9, 4], 2)
    >>> len(a), a[0] == b[0], a[1] == b[1]
    (2, True, False)
    """
    names: list[bytes] = []
    parent = root_hash(salt)
    for start in range(0, len(token_ids) - block_size + 1, block_size):
        parent = block_hash(parent, token_ids[start : start + block_size])
        names.append(parent)
    return names
