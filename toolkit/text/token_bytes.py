"""The bytes that each token adds to the text, read off the vocabulary.

A token may hold a part of a character, so its text alone cannot say which bytes it stands for. The
tokenizer's decoder tells how its pieces are written: in byte-level BPE every byte has a printable
stand-in, in SentencePiece a space is a low bar and a lone byte is spelled ``<0xE2>``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from tokenizers import Tokenizer as RustTokenizer
from tokenizers.decoders import Decoder

__all__ = ["TokenBytes", "VocabularyToken"]

_LONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Any word: what a decoder adds behind it, it adds in the middle of a text.
_WORD = "x"

Spell = Callable[[str, bool], bytes]
"""Gives a piece's bytes; the flag says whether it begins the text."""


class VocabularyToken(NamedTuple):
    """One token of the vocabulary: its bytes inside a text, and when it begins one."""

    inside: bytes
    at_start: bytes
    is_special: bool = False
    is_lone_byte: bool = False
    is_known: bool = True


class TokenBytes:
    r"""Gives the bytes of a token; special tokens have the bytes of their names.

    Args:
        backend: A transformers tokenizer.
        decode: Turns token ids into text, special tokens included; for tokenizers whose decoder is
            not known here, so that a part of a character has the bytes of U+FFFD.

    >>> from tokenizers import Tokenizer, decoders, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> rust = Tokenizer(models.WordLevel({"Ġcat": 0, "Ã": 1, "?": 2}, unk_token="?"))
    >>> rust.decoder = decoders.ByteLevel()
    >>> token_bytes = TokenBytes(PreTrainedTokenizerFast(tokenizer_object=rust), rust.decode)
    >>> token_bytes(0), token_bytes(1)
    (b' cat', b'\xc3')
    """

    def __init__(self, backend: Any, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._rust: RustTokenizer | None = getattr(backend, "backend_tokenizer", None)
        self._spell = _spelling_rule(self._rust) if self._rust is not None else None
        steps = _steps(self._rust.decoder) if self._rust is not None else []
        self._has_lone_bytes = any(step["type"] == "ByteFallback" for step in steps)
        self._special_ids = _special_ids(backend)
        self._known: dict[int, VocabularyToken] = {}
        # A tokenizer written in Python raises on tokens beyond its vocabulary.
        get_vocab = getattr(backend, "get_vocab", dict) if self._rust is None else dict
        self._num_known = max(get_vocab().values(), default=math.inf) + 1

    @property
    def is_exact(self) -> bool:
        """Whether a text is its tokens' bytes joined, wherever each of them stands.

        Only the first token of a text may differ, and rows of lone bytes that are no UTF-8.
        """
        return self._spell is not None

    def __call__(self, token_id: int) -> bytes:
        """Return the bytes of a token within a text."""
        return self.token(token_id).inside

    def at_start(self, token_id: int) -> bytes:
        """Return the bytes of a token that begins a text: some decoders drop its space there."""
        return self.token(token_id).at_start

    @property
    def special_ids(self) -> frozenset[int]:
        """The tokens that ``skip_special_tokens`` leaves out of the text."""
        return self._special_ids

    def token(self, token_id: int) -> VocabularyToken:
        """Return all that is known of a token; one beyond the vocabulary has no bytes."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._look_up(token_id)
        return known

    def _look_up(self, token_id: int) -> VocabularyToken:
        is_special = token_id in self._special_ids
        if self._rust is None and token_id >= self._num_known:
            return VocabularyToken(b"", b"", is_known=False)
        if self._rust is None or self._spell is None:
            own = self._decode([token_id]).encode()
            return VocabularyToken(own, own, is_special)
        piece = self._rust.id_to_token(token_id)
        if piece is None:  # the model's vocabulary may be padded beyond the tokenizer's
            return VocabularyToken(b"", b"", is_known=False)
        at_start = self._spell(piece, True)
        lone_byte = _LONE_BYTE.fullmatch(piece) if self._has_lone_bytes else None
        if lone_byte is None:
            return VocabularyToken(self._spell(piece, False), at_start, is_special)
        own = bytes.fromhex(lone_byte[1])
        # A text may lose its first space however that is spelled.
        return VocabularyToken(own, own if own != b" " else at_start, is_special, is_lone_byte=True)


def _special_ids(backend: Any) -> frozenset[int]:
    """Return the tokens that decoding can skip."""
    added = getattr(backend, "added_tokens_decoder", {})
    flagged = (token_id for token_id, token in added.items() if getattr(token, "special", False))
    return frozenset(getattr(backend, "all_special_ids", ())) | frozenset(flagged)


def _spelling_rule(rust: RustTokenizer) -> Spell | None:
    """Return how the decoder writes a piece, or None if that depends on other tokens."""
    if rust.decoder is None:
        return _after_a_space
    steps = _steps(rust.decoder)
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return _from_stand_ins
    return partial(_as_decoded, rust.decoder) if _writes_piece_by_piece(steps) else None


def _steps(decoder: Decoder | None) -> list[dict[str, Any]]:
    """List the steps of a decoder in order."""
    if decoder is None:
        return []
    state = json.loads(decoder.__getstate__())
    return list(state.get("decoders", [state]))


def _writes_piece_by_piece(steps: Sequence[dict[str, Any]]) -> bool:
    """Whether these steps write each piece without looking at others.

    So do Metaspace and WordPiece, and the steps that SentencePiece tokenizers are exported with:
    replacements, then bytes, then all joined, then at most one space less in front.
    """
    names = [step["type"] for step in steps]
    if names in (["Metaspace"], ["WordPiece"]):
        return True
    while names and names[0] == "Replace":
        names = names[1:]
    if names == ["ByteFallback", "Fuse", "Strip"]:
        return bool(steps[-1]["start"] <= 1 and steps[-1]["stop"] == 0)
    return names in ([], ["Fuse"], ["ByteFallback"], ["ByteFallback", "Fuse"])


def _after_a_space(piece: str, is_start: bool) -> bytes:
    return (piece if is_start else f" {piece}").encode()


def _as_decoded(decoder: Decoder, piece: str, is_start: bool) -> bytes:
    text = decoder.decode([piece]) if is_start else decoder.decode([_WORD, piece])[len(_WORD) :]
    return str(text).encode()


def _from_stand_ins(piece: str, is_start: bool) -> bytes:
    """Read GPT-2's table backwards; a piece that is not written in it stands for itself."""
    del is_start
    try:
        return bytes(_STAND_INS[character] for character in piece)
    except KeyError:
        return piece.encode()


def _stand_ins() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for 256, 257, ..."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


_STAND_INS = _stand_ins()
