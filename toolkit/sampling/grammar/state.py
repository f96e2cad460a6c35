"""Where one answer stands in its grammar: what may come next, and whether it is complete."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InvalidRequest
from toolkit.request import Request
from toolkit.sampling.grammar.closing import Closing
from toolkit.sampling.grammar.compiler import CompiledGrammar

__all__ = ["Accepted", "GrammarState", "mask_after"]


class Accepted(NamedTuple):
    """The token that an answer goes on with, and whether nothing may follow it."""

    token_id: int
    is_last: bool
    is_forced: bool = False  # no other token was allowed, or it stands in for the one sampled


class GrammarState:
    """One sample of a request: its place in the grammar, and the mask of what may follow.

    Args:
        compiled: The grammar.
        request: Whose answer it is.
    """

    def __init__(self, compiled: CompiledGrammar, request: Request) -> None:
        table = compiled.table
        self.matcher = compiled.new_matcher()
        self.num_tokens = 0
        self.mask: NDArray[np.uint32] = compiled.first_mask.copy()
        self.pending: Future[None] | None = None
        self._has_eos = table.has_eos
        self._eos_token_ids = table.eos_token_ids
        self._hides_eos = request.params.ignore_eos
        self._closing: Closing | None = None
        if request.params.max_tokens is None and compiled.ending is not None:
            _check_room(compiled.ending, request.max_tokens)
            finder = compiled.new_finder()
            self._closing = Closing(finder, request.max_tokens, compiled.ending)
        self._hide_eos()

    @property
    def allows_one(self) -> bool:
        """Whether the mask allows a single token."""
        words = self.mask[np.flatnonzero(self.mask)]
        return len(words) == 1 and int(words[0]).bit_count() == 1

    def accept(self, token_id: int) -> Accepted:
        """Go on by a sampled token, or by another where the budget for the answer ends.

        Raises:
            InvalidRequest: the grammar does not allow the token, or is too hard to follow.
        """
        if token_id in self._eos_token_ids and self.matcher.is_accepting():
            return Accepted(token_id, True)
        if not self.matcher.consume_token(token_id):
            reason = self.matcher.get_error().split("\n")[0]
            raise InvalidRequest(
                f"token {token_id} does not fit the form that structured_outputs asks for "
                f"({reason:.200}); a logits processor must not bring back what is -inf",
                param="structured_outputs",
            )
        self.num_tokens += 1
        chosen: int | None = token_id
        is_at_budget = False
        if self._closing is not None:
            chosen = self._closing.guard(self.matcher, token_id, self.num_tokens, self.mask)
            is_at_budget = self.num_tokens >= self._closing.budget
        if chosen is None:
            return Accepted(self._eos_token_ids[0], True)
        may_end = is_at_budget or not self._has_eos
        is_last = self.matcher.is_stopped() or (may_end and self.matcher.is_accepting())
        self.check()
        return Accepted(chosen, is_last)

    def take_mask(self, mask: NDArray[np.uint32]) -> None:
        """Keep what may come next, and find the way to the end where that is due."""
        self.mask = mask
        self._hide_eos()
        if self._closing is not None:
            self._closing.look_ahead(self.matcher, self.num_tokens)

    def _hide_eos(self) -> None:
        """Take the end-of-sequence tokens out of the mask for a request that goes on after them."""
        if self._hides_eos:
            _forbid(self.mask, self._eos_token_ids)

    def check(self) -> None:
        """Raise InvalidRequest where no answer can follow any more."""
        matcher: Any = self.matcher
        if matcher.is_error():
            reason = matcher.get_error().split("\n")[0]
        elif matcher.is_stopped() and not matcher.is_accepting():
            reason = "no token leads on"
        else:
            return
        raise InvalidRequest(
            f"the form that structured_outputs asks for cannot be completed: {reason:.200}",
            param="structured_outputs",
        )


def mask_after(
    compiled: CompiledGrammar, request: Request, token_ids: Sequence[int]
) -> NDArray[np.uint32]:
    """Return what a request might sample behind some of its output tokens, a bit each.

    Raises:
        InvalidRequest: the grammar does not allow these tokens.
    """
    matcher = compiled.new_matcher()
    if token_ids and not matcher.consume_tokens(list(token_ids)):
        raise InvalidRequest(
            f"the output of {request.id} does not fit the form that structured_outputs asks for",
            param="structured_outputs",
        )
    packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint32)
    mask = packed[: compiled.table.num_words].copy()
    if request.params.ignore_eos:
        _forbid(mask, compiled.table.eos_token_ids)
    return mask


def _forbid(mask: NDArray[np.uint32], token_ids: Sequence[int]) -> None:
    for token_id in token_ids:
        mask[token_id // 32] &= np.uint32(~(1 << token_id % 32) & 0xFFFFFFFF)


def _check_room(ending: list[int], room: int) -> None:
    """Refuse an answer whose shortest known text does not fit the context."""
    if len(ending) > room:
        raise InvalidRequest(
            f"the context has room for {room} more tokens, in which no answer of the form that "
            "structured_outputs asks for was found; shorten the prompt or the form",
            param="structured_outputs",
        )
