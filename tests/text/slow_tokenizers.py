"""Small tokenizers written in Python, and the lines that all small tokenizers are made from."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizer

LINES = [
    "The cat sat on the mat, and the hat sat on the cat. It isn't what they'd do!",
    "naïve café, e\u0301te\u0301, ñandú, Zoë, straße, o\u0302\u0323 a\u0308 ﬁ Å \ufeff",
    "שָׁלוֹם עולם, مرحبا بالعالم, สวัสดีชาวโลก, नमस्ते दुनिया",
    "日本語の文章、漢字かな交じり。한국어 문장, ㅎㅏㄴ 각\u1100\u1161",
    "🙂🙃👍🏽 👨\u200d👩\u200d👧 🇩🇪🇯🇵 ❤\ufe0f 1\ufe0f\u20e3 \u200b\u2060\u00ad",
    "def f(x):\n\treturn x ** 2  # twice\r\n\n    if x > 10: y = 'a' + \"b\"",
    '1234567890 3.14 a@b.c https://x.y/z?q=1 {"k": [1, 2]} <b>no tag</b>',
]


class Utf8Tokenizer(PreTrainedTokenizer):
    """Tokens are one to five bytes of UTF-8, cut anywhere; bytes that are none become U+FFFD."""

    def __init__(self, **kwargs: Any) -> None:
        data = "".join(LINES).encode()
        longer = {data[start : start + 2 + start % 4] for start in range(0, len(data), 3)}
        self._pieces = [bytes([byte]) for byte in range(256)]
        self._pieces += sorted(piece for piece in longer if len(piece) > 1)
        self._ids = {piece: index for index, piece in enumerate(self._pieces)}
        super().__init__(eos_token="<eos>", **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def get_vocab(self) -> dict[str, int]:
        vocabulary = {piece.decode("latin-1"): index for piece, index in self._ids.items()}
        return vocabulary | self.added_tokens_encoder

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        data, tokens = text.encode(), []
        while data:
            piece = next(data[:size] for size in range(5, 0, -1) if data[:size] in self._ids)
            tokens.append(piece.decode("latin-1"))
            data = data[len(piece) :]
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids[token.encode("latin-1")]

    def _convert_id_to_token(self, index: int) -> str:
        return self._pieces[index].decode("latin-1")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        added = self.added_tokens_encoder
        data = (token.encode("utf-8" if token in added else "latin-1") for token in tokens)
        return b"".join(data).decode(errors="replace")


class SentencePiecesTokenizer(PreTrainedTokenizer):
    """Words with a low bar for their space, and bytes; each byte that is no UTF-8 is a U+FFFD."""

    def __init__(self, **kwargs: Any) -> None:
        words = {f"▁{word}" for line in LINES for word in line.split()}
        letters = set("".join(LINES[:2])) - {" "}
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        self._pieces = [*bytes_, "▁", *sorted(words | letters)]
        self._ids = {piece: index for index, piece in enumerate(self._pieces)}
        super().__init__(eos_token="</s>", **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def get_vocab(self) -> dict[str, int]:
        return self._ids | self.added_tokens_encoder

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        tokens = []
        for word in f"▁{text.replace(' ', '▁')}".replace("▁", " ▁").split(" ")[1:]:
            if word in self._ids:
                tokens.append(word)
                continue
            for letter in word:
                spelled = [f"<0x{byte:02X}>" for byte in letter.encode()]
                tokens += [letter] if letter in self._ids else spelled
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids[token]

    def _convert_id_to_token(self, index: int) -> str:
        return self._pieces[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        is_byte = [len(token) == 6 and token.startswith("<0x") for token in tokens]
        data = b"".join(
            bytes.fromhex(token[3:5]) if byte else token.replace("▁", " ").encode()
            for token, byte in zip(tokens, is_byte, strict=True)
        )
        text, rest = "", data
        while rest:
            try:
                return (text + rest.decode()).removeprefix(" ")
            except UnicodeDecodeError as error:
                text += rest[: error.start].decode() + "\N{REPLACEMENT CHARACTER}"
                rest = rest[error.start + 1 :]
        return text.removeprefix(" ")
