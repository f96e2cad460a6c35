"""Small tokenizers, made here: byte-level as GPT-2's, and with byte fallback as Llama's."""

from __future__ import annotations

import random
from functools import lru_cache

from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "the cat sat on the mat, and the hat sat on the cat. " * 3,
    "naïve café, e\u0301te\u0301, ñandú, Zoë; שלום, 日本語, 한국어. " * 3,
    "🙂🙃 👨\u200d👩\u200d👧 🇩🇪 a\u0308 o\u0302\u0323 \u200b\n\n\t",
]
SPECIALS = ["<eos>", "<pad>", "<|user|>"]


@lru_cache
def byte_level() -> RustTokenizer:
    """A byte-level BPE: every byte has a token, and characters may be cut anywhere."""
    tokenizer = RustTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@lru_cache
def byte_fallback() -> RustTokenizer:
    """Words with a sign for the space before them; other characters are spelled in bytes."""
    words = ["▁", "▁the", "▁cat", "the", "c", "a", "t", "s", "▁na", "ïve", "é", "日", "!", "\u0301"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = RustTokenizer(
        models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def spelled_in_bytes(rng: random.Random, text: str) -> list[int]:
    """Byte-fallback tokens for a text, with words of the vocabulary between its characters."""
    tokenizer, ids = byte_fallback(), []
    for character in text:
        ids += [3 + byte for byte in character.encode()]
        if rng.random() < 0.4:
            ids.append(rng.randrange(259, tokenizer.get_vocab_size()))
    return ids


def backend(*, name: str = "a model of tests", **kwargs: object) -> PreTrainedTokenizerFast:
    """The byte-level one as a transformers tokenizer."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), eos_token="<eos>", pad_token="<pad>", **kwargs
    )
    tokenizer.name_or_path = name
    return tokenizer
