"""The vocabulary as llguidance reads it: the bytes of every token, and which of them are special.

A grammar works on bytes, so a token may hold half a character, or the end of one word and the
beginning of the next. Special tokens are no text: a grammar names them, as in ``<|im_end|>``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import cast

from llguidance import LLTokenizer, TokenizerWrapper

__all__ = ["TokenTable", "Vocabulary", "byte_table", "model_table"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
# Forced text is cut into the longest tokens, and longer ones than this are rows of spaces.
_MAX_TOKEN_BYTES = 64


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a model.

    Args:
        size: How many logits the model has.
        eos_token_ids: Tokens that end a sequence.
        special_token_ids: Tokens that are no text.
        bytes_of: Gives the bytes of a token within a text, those of its name for a special one.
    """

    size: int
    eos_token_ids: Collection[int]
    special_token_ids: Collection[int]
    bytes_of: Callable[[int], bytes]

    def names(self) -> dict[int, bytes]:
        """Return the names of the special tokens, by id."""
        ids = {*self.special_token_ids, *self.eos_token_ids}
        return {
            token_id: self.bytes_of(token_id) for token_id in sorted(ids) if token_id < self.size
        }


class TokenTable:
    """A vocabulary in llguidance's hands.

    Args:
        tokens: The bytes of each token; an empty one is never allowed.
        names: Those that are special, among them the end-of-sequence tokens.
        eos_token_ids: Which end a sequence; one beyond the tokens is made up where there are none.
    """

    def __init__(
        self, tokens: Sequence[bytes], names: dict[int, bytes], eos_token_ids: Collection[int]
    ) -> None:
        self.tokens = list(tokens)
        self.has_eos = bool(eos_token_ids)
        self.eos_token_ids = sorted(eos_token_ids) or [len(self.tokens)]
        self.special_token_ids = set(names)
        for token_id, name in names.items():
            self.tokens[token_id] = name
        if not self.has_eos:
            self.tokens.append(b"<|end of sequence|>")
            self.special_token_ids.add(len(self.tokens) - 1)
        wrapper = _Wrapper(self.tokens, self.special_token_ids, self.eos_token_ids[0])
        self.cut = wrapper.__call__
        as_wrapper = cast("TokenizerWrapper", wrapper)
        self.for_grammars = LLTokenizer(as_wrapper, eos_token=self.eos_token_ids)

    @property
    def num_words(self) -> int:
        """How many 32-bit words a mask of one bit for each token takes."""
        return (len(self.tokens) + 31) // 32


class _Wrapper:
    """What LLTokenizer asks of a tokenizer, under the names that it asks for."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self, tokens: Sequence[bytes], special_token_ids: Collection[int], eos_token_id: int
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = sorted(special_token_ids)
        self.eos_token_id = eos_token_id
        self._ids = {
            own: token_id
            for token_id, own in enumerate(tokens)
            if own and len(own) <= _MAX_TOKEN_BYTES and token_id not in special_token_ids
        }
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: bytes | str) -> list[int]:
        """Cut forced text into tokens, the longest first; what no token spells is left out.

        llguidance forces the tokens of a text that has no alternative, but only as far as they
        spell it.
        """
        rest = text.encode() if isinstance(text, str) else bytes(text)
        found = []
        while rest:
            for length in range(min(self._longest, len(rest)), 0, -1):
                token_id = self._ids.get(rest[:length])
                if token_id is not None:
                    found.append(token_id)
                    rest = rest[length:]
                    break
            else:
                break
        return found


def model_table(vocabulary: Vocabulary) -> TokenTable:
    """Return the model's own tokens; with a large vocabulary it takes about a second."""
    tokens = [_known_bytes(vocabulary.bytes_of(token_id)) for token_id in range(vocabulary.size)]
    return TokenTable(tokens, vocabulary.names(), _eos_in_range(vocabulary))


def byte_table(vocabulary: Vocabulary) -> TokenTable:
    """Return the single bytes, behind the model's special tokens at their own places.

    It is there at once whatever the vocabulary, and says as much about a grammar: whether it is
    sound, and what its shortest text is.
    """
    tokens = [b""] * vocabulary.size + [bytes([byte]) for byte in range(256)]
    return TokenTable(tokens, vocabulary.names(), _eos_in_range(vocabulary))


def _eos_in_range(vocabulary: Vocabulary) -> list[int]:
    return [token_id for token_id in vocabulary.eos_token_ids if token_id < vocabulary.size]


def _known_bytes(own: bytes) -> bytes:
    """Return a token's bytes; none for one that has become a replacement character."""
    return b"" if _REPLACEMENT in own else own
