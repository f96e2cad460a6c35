"""Store keys and values in the blocks of the cache.

Request path 7/8: from models.attention, into the blocks of cache.storage.
"""

from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.heads import move_heads
from toolkit.kernels.triton.rows import DTYPES

__all__ = ["write_kv"]


def write_kv(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
) -> None:
    """Store keys and values at their slots: reference.write_kv."""
    if key.dtype in DTYPES and value.dtype in DTYPES:
        move_heads(None, key, value, None, key_cache, value_cache, slots)
    else:
        reference.write_kv(key, value, key_cache, value_cache, slots)
