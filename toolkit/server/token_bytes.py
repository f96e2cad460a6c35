"""The bytes that each token adds to the text, read off the vocabulary.

A token may hold a part of a character, so its text alone cannot say which bytes it stands for. The
tokenizer's decoder tells how its pieces are written: in byte-level BPE every byte has a printable
stand-in, in SentencePiece a space is a low bar and a lone byte is spelled ``<0xE2>``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from toolkit.text import Tokenizer

__all__ = ["TokenBytes"]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_LONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenBytes:
    """Gives the bytes of a token; special tokens have the bytes of their names."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._kinds = _decoder_kinds(tokenizer.backend)
        self._stand_ins = {character: byte for byte, character in _byte_stand_ins().items()}
        self._known: dict[int, bytes] = {}
        added = getattr(tokenizer.backend, "added_tokens_decoder", {})
        self._added = {token_id: str(token) for token_id, token in added.items()}
        self._special = frozenset(tokenizer.backend.all_special_ids) | frozenset(
            token_id for token_id, token in added.items() if getattr(token, "special", False)
        )

    def __call__(self, token_id: int) -> bytes:
        """Return the bytes of a token within a text."""
        if token_id not in self._known:
            self._known[token_id] = self._bytes_of(token_id)
        return self._known[token_id]

    def at_start(self, token_id: int) -> bytes:
        """Return the bytes of a token that begins a text: some decoders drop its space there."""
        own = self(token_id)
        dropped = own.startswith(b" ") and not self._tokenizer.token_text(token_id).startswith(" ")
        return own[1:] if dropped else own

    def is_special(self, token_id: int) -> bool:
        """Whether ``skip_special_tokens`` leaves the token out of the text."""
        return token_id in self._special

    def _bytes_of(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        piece = self._tokenizer.backend.convert_ids_to_tokens(token_id)
        if piece is None:  # the model's vocabulary may be padded beyond the tokenizer's
            return b""
        if "ByteLevel" in self._kinds:
            return bytes(self._stand_ins[c] for c in piece if c in self._stand_ins)
        if self._kinds & {"Metaspace", "ByteFallback"}:
            lone_byte = _LONE_BYTE.fullmatch(piece)
            return bytes.fromhex(lone_byte[1]) if lone_byte else piece.replace(_SPACE, " ").encode()
        return self._tokenizer.token_text(token_id).encode()


def _decoder_kinds(backend: Any) -> frozenset[str]:
    """Name the steps of a fast tokenizer's decoder; none for a tokenizer written in Python."""
    decoder = getattr(getattr(backend, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return frozenset()
    state = json.loads(decoder.__getstate__())
    return frozenset(step["type"] for step in state.get("decoders", [state]))


def _byte_stand_ins() -> dict[int, str]:
    """GPT-2's table: printable bytes stand for themselves, the others for 256, 257, ..."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + index) for index, byte in enumerate(others)
    }
