"""Random numbers that are a function of (seed, sample index, position) and of nothing else.

Philox-4x32-10 (Salmon et al., SC'11): a keyed bijection of a counter, so the number for a position
is computed, never drawn from a state. Batch-mates, order, preemption and chunking cannot change it.
What a row's key becomes for each token of the vocabulary: ``toolkit.kernels.reference_sampling``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["philox", "row_keys"]

# Multipliers and Weyl constants of Philox-4x32, Salmon et al., table 2 and section 4.3.
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_NUM_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HIGH_SHIFT = np.uint64(32)


def philox(counter: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply Philox-4x32-10.

    Args:
        counter: [4, n], 32-bit words in uint64.
        key: [2, n], likewise.

    Returns:
        [4, n] random 32-bit words in uint64.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_NUM_ROUNDS):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> _HIGH_SHIFT) ^ c1 ^ k0,
            second & _LOW,
            (first >> _HIGH_SHIFT) ^ c3 ^ k1,
            first & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return np.stack((c0, c1, c2, c3))


def row_keys(
    seeds: Sequence[int], sample_indices: Sequence[int], positions: Sequence[int]
) -> NDArray[np.uint64]:
    """Return a 64-bit key per row, from which the noise of all its tokens follows.

    Philox's key is the seed's low 64 bits, its counter is (position, sample index); of its four
    words, the first is the high half of the row's key and the second the low half.

    >>> bool(row_keys([7], [0], [12])[0] == row_keys([1, 7], [5, 0], [3, 12])[1])
    True
    """
    seed = np.array([s & 0xFFFFFFFFFFFFFFFF for s in seeds], dtype=np.uint64)
    position = np.asarray(positions, dtype=np.uint64)
    sample = np.asarray(sample_indices, dtype=np.uint64)
    counter = np.stack((position & _LOW, position >> _HIGH_SHIFT, sample, np.zeros_like(sample)))
    key = np.stack((seed & _LOW, seed >> _HIGH_SHIFT))
    words = philox(counter, key)
    return (words[0] << _HIGH_SHIFT) | words[1]
