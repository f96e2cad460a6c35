"""Which token to try first on the way to an end, by the bytes that it is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.sampling.grammar.vocabulary import TokenTable

__all__ = ["USED", "TokenCosts"]

# One of each kind that may be the last of a text.
_KINDS = (b"0", b"a", b"A", b".", b'"', b")", b"]", b"}", b"\n", b" ")
# Where all of these may follow, no structure is asked for but text.
_TEXT = (b"#", b"@", b"~")
# Which token to try first, by the bytes that it is made of: what closes JSON, what separates its
# parts, digits, the letters of null, true and false, what opens, then all else; spaces come last
# because they lead nowhere, and backslashes because what follows them closes nothing.
_FAMILIES = (
    frozenset(b'"]}'),
    frozenset(b'"]}:,'),
    frozenset(b"0123456789"),
    frozenset(b"nultrefas"),
    frozenset(b'"]}:,[{-'),
    frozenset(range(33, 127)) - frozenset(b"\\"),
)
_SPACE_FAMILY, _OTHER_FAMILY = len(_FAMILIES) + 1, len(_FAMILIES)
_MAX_LENGTH = 1 << 8
# A use counts for more than any preference: all else is tried before a token comes again.
USED = (_SPACE_FAMILY + 1) * 2 * _MAX_LENGTH


class TokenCosts:
    """How late each token of a table is tried on the way to an end."""

    def __init__(self, table: TokenTable) -> None:
        self.table = table
        costs = [_cost(own) for own in table.tokens]
        self.preferred: NDArray[np.int64] = np.array(costs, dtype=np.int64)
        # Within free text only a quotation mark closes: brackets there are text like any other.
        self._in_text = self.preferred.copy()
        for token_id, own in enumerate(table.tokens):
            if own.startswith(b'"'):
                self._in_text[token_id] = min(len(own), _MAX_LENGTH) - _MAX_LENGTH
        self._text = [cut[0] for each in _TEXT if len(cut := table.cut(each)) == 1]
        is_single = np.array([len(own) == 1 for own in table.tokens])
        # Where each token has its turn, long ones would only be more to go through.
        self.in_turn = np.where(is_single, self.preferred, self.preferred + USED // 2)
        self.kinds = [token_id for kind in _KINDS for token_id in table.cut(kind)]
        # Of a table that is mostly empty, as that of single bytes, the rest need not be looked at.
        self._written = np.flatnonzero([bool(own) for own in table.tokens])

    def closing(self, mask: NDArray[np.uint8]) -> int | None:
        """Return the token of a mask that closes best; None where it allows none."""
        is_text = all(mask[token_id >> 3] >> (token_id & 7) & 1 for token_id in self._text)
        return self.best(mask, self._in_text if is_text and self._text else self.preferred)

    def best(self, mask: NDArray[np.uint8], costs: NDArray[np.int64]) -> int | None:
        """Return the token of the least cost that a mask allows; None where it allows none."""
        written = self._written
        if len(written) < len(costs) // 8:
            allowed = written[(mask[written >> 3] >> (written & 7) & 1).astype(bool)]
        else:
            bits = np.unpackbits(mask, count=len(costs), bitorder="little")
            allowed = np.flatnonzero(bits)
        return int(allowed[costs[allowed].argmin()]) if len(allowed) else None


def _cost(own: bytes) -> int:
    """Return how late a token is tried: by its family, in which long closers come first."""
    used = set(own)
    length = min(len(own), _MAX_LENGTH - 1)
    for family, members in enumerate(_FAMILIES):
        if used <= members:
            # Where a quotation mark does not close a text it opens one, and the rest is text.
            if own.startswith(b'"') and len(own) > 1 and not own.startswith(b'""'):
                continue
            is_closing = family < 2
            return family * 2 * _MAX_LENGTH + (_MAX_LENGTH - length if is_closing else length)
    leads_nowhere = used & set(b" \t\r\n\\")
    family = _SPACE_FAMILY if leads_nowhere else _OTHER_FAMILY
    return family * 2 * _MAX_LENGTH + length
