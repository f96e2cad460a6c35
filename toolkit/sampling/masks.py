"""Tokens that a request forbids: which they are, and what is refused before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from toolkit.errors import InvalidParameter
from toolkit.request import Request

__all__ = ["BadSequences", "banned_token_ids", "check_token_ids", "stop_token_ids"]


def stop_token_ids(request: Request) -> list[int]:
    """Return the tokens that end a request's output, in order."""
    ids = set(request.params.stop_token_ids or ())
    if not request.params.ignore_eos:
        ids |= request.eos_token_ids
    return sorted(ids)


def banned_token_ids(request: Request) -> list[int]:
    """Return the bad words of a single token: they may not come anywhere."""
    return [word[0] for word in request.bad_word_ids if len(word) == 1]


class BadSequences:
    """Bad words of several tokens: the last is banned where the output ends with the others.

    Looking them up costs one dictionary access per length that occurs, however many there are.
    """

    def __init__(self, words: Iterable[Sequence[int]]) -> None:
        # By number of tokens before the last one: those tokens -> all last ones.
        self._endings: dict[int, dict[tuple[int, ...], list[int]]] = {}
        for word in words:
            if len(word) > 1:
                *before, last = word
                same_length = self._endings.setdefault(len(before), {})
                same_length.setdefault(tuple(before), []).append(last)

    def __bool__(self) -> bool:
        return bool(self._endings)

    def banned_after(self, token_ids: Sequence[int], num_output: int) -> list[int]:
        """Return what must not follow ``token_ids``, whose last ``num_output`` are the output."""
        banned: list[int] = []
        for length, endings in self._endings.items():
            if length <= num_output:
                banned += endings.get(tuple(token_ids[-length:]), ())
        return banned


def check_token_ids(request: Request, vocab_size: int) -> None:
    """Refuse parameters that name tokens the model does not have, or that leave none to choose.

    Raises:
        InvalidParameter: which of them, and what is wrong.
    """
    params = request.params
    named: dict[str, Iterable[int]] = {
        "logit_bias": params.logit_bias or (),
        "stop_token_ids": params.stop_token_ids or (),
        "allowed_token_ids": params.allowed_token_ids or (),
        "bad_words": [token_id for word in request.bad_word_ids for token_id in word],
    }
    for name, token_ids in named.items():
        largest = max(token_ids, default=0)
        if largest >= vocab_size:
            raise InvalidParameter(
                f"{name} names token {largest}, outside the vocabulary of {vocab_size} tokens",
                param=name,
            )
    banned = {*banned_token_ids(request), *(stop_token_ids(request) if params.min_tokens else ())}
    allowed = params.allowed_token_ids
    if len(banned) >= vocab_size if allowed is None else banned.issuperset(allowed):
        raise InvalidParameter(
            "no token is left to begin the output with: every allowed one is a bad word, or a "
            "stop token that min_tokens holds back",
            param="allowed_token_ids" if allowed is not None else "bad_words",
        )
