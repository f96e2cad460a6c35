"""One small tokenizer of every format that checkpoints come with, trained here on a few lines.

Each is built with the steps (normalizer, pre-tokenizer, decoder) that the family it is named after
writes to tokenizer.json; the vocabularies are tiny, so that characters are often cut.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers import Tokenizer as RustTokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from tests.text.slow_tokenizers import LINES, SentencePiecesTokenizer, Utf8Tokenizer
from toolkit.text import Tokenizer

CORPUS = LINES * 4
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def fast(rust: RustTokenizer, **special: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=rust, **special)


# ---- byte-level BPE


def _byte_level(
    *,
    split: pre_tokenizers.PreTokenizer | None = None,
    add_prefix_space: bool = False,
    normalizer: normalizers.Normalizer | None = None,
) -> RustTokenizer:
    rust = RustTokenizer(models.BPE())
    if normalizer is not None:
        rust.normalizer = normalizer
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=split is None)
    rust.pre_tokenizer = bytes_ if split is None else pre_tokenizers.Sequence([split, bytes_])
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(CORPUS, trainer)
    return rust


def gpt2() -> PreTrainedTokenizerFast:
    return fast(_byte_level(), eos_token="<|endoftext|>")


def roberta() -> PreTrainedTokenizerFast:
    """With a space in front of every text, and a mask that eats the space before it."""
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return fast(_byte_level(add_prefix_space=True), eos_token="</s>", mask_token=mask)


def llama3() -> PreTrainedTokenizerFast:
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    rust = _byte_level(split=split)
    rust.add_special_tokens(["<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>"])
    return fast(rust, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


def qwen() -> PreTrainedTokenizerFast:
    """With added tokens that are not special, one of them with letters of the byte alphabet."""
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT.replace("{1,3}", "")), "isolated")
    rust = _byte_level(split=split, normalizer=normalizers.NFC())
    rust.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    rust.add_tokens(["<tool_call>", "</tool_call>", "Zoé", "two words", "🧨"])
    return fast(rust, eos_token="<|im_end|>")


# ---- SentencePiece BPE with byte fallback


def _byte_fallback(
    *, normalizer: normalizers.Normalizer | None, pre: pre_tokenizers.PreTokenizer | None
) -> RustTokenizer:
    trained = RustTokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    # Few letters: all others are spelled in bytes.
    trainer = trainers.BpeTrainer(vocab_size=240, limit_alphabet=70, show_progress=False)
    trained.train_from_iterator(CORPUS, trainer)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = trained.get_vocab()
    tokens += sorted(pieces, key=pieces.__getitem__)
    merges = [
        (token[:cut], token[cut:])
        for token in tokens[259:]
        for cut in range(1, len(token))
        if token[:cut] in pieces and token[cut:] in pieces
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    rust = RustTokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if normalizer is not None:
        rust.normalizer = normalizer
    if pre is not None:
        rust.pre_tokenizer = pre
    return rust


def _sentencepiece_decoder(*, strip: bool) -> decoders.Decoder:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if strip:
        steps.append(decoders.Strip(content=" ", left=1))
    return decoders.Sequence(steps)


def llama2() -> PreTrainedTokenizerFast:
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    rust = _byte_fallback(normalizer=spaces, pre=None)
    rust.decoder = _sentencepiece_decoder(strip=True)
    return fast(rust, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def mistral() -> PreTrainedTokenizerFast:
    pre = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    rust = _byte_fallback(normalizer=None, pre=pre)
    rust.decoder = _sentencepiece_decoder(strip=True)
    rust.add_special_tokens(["[INST]", "[/INST]"])
    return fast(rust, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def gemma() -> PreTrainedTokenizerFast:
    """Keeps a text's first space; has rows of spaces among its added tokens."""
    rust = _byte_fallback(
        normalizer=normalizers.Replace(" ", "▁"),
        pre=pre_tokenizers.Split(" ", "merged_with_previous"),
    )
    rust.decoder = _sentencepiece_decoder(strip=False)
    rust.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    rust.add_tokens(["▁▁", "▁▁▁", "\n\n", "<table>"])
    return fast(rust, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


# ---- SentencePiece unigram


def _unigram(
    *, scheme: str, normalizer: normalizers.Normalizer, special: list[str]
) -> RustTokenizer:
    rust = RustTokenizer(models.Unigram())
    rust.normalizer = normalizer
    rust.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    rust.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    rust.train_from_iterator(CORPUS, trainer)
    return rust


def t5() -> PreTrainedTokenizerFast:
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    rust = _unigram(scheme="always", normalizer=normalizers.NFKC(), special=special)
    return fast(rust, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def albert() -> PreTrainedTokenizerFast:
    lower = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]"]
    rust = _unigram(scheme="first", normalizer=lower, special=special)
    return fast(rust, eos_token="[SEP]", unk_token="<unk>")


def xlm_roberta() -> PreTrainedTokenizerFast:
    """Here without a space in front of a text, as some of its descendants have it."""
    collapse = normalizers.Replace(Regex(" {2,}"), " ")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    rust = _unigram(scheme="never", normalizer=collapse, special=special)
    return fast(rust, eos_token="</s>", unk_token="<unk>")


# ---- words and parts of words


def bert() -> PreTrainedTokenizerFast:
    rust = RustTokenizer(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=False)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece(prefix="##")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    rust.train_from_iterator(CORPUS, trainer)
    return fast(rust, unk_token="[UNK]", sep_token="[SEP]", eos_token="[SEP]")


def word_level() -> PreTrainedTokenizerFast:
    """Without a decoder: the library puts a space between all tokens."""
    rust = RustTokenizer(models.WordLevel(unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]", "[EOS]"], show_progress=False)
    rust.train_from_iterator(CORPUS, trainer)
    return fast(rust, unk_token="[UNK]", eos_token="[EOS]")


def openai_gpt() -> PreTrainedTokenizerFast:
    """Its decoder writes a word's space only when another token follows."""
    rust = RustTokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<eos>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    rust.train_from_iterator(CORPUS, trainer)
    return fast(rust, unk_token="<unk>", eos_token="<eos>")


KINDS: dict[str, Callable[[], Any]] = {
    "gpt2": gpt2,
    "roberta": roberta,
    "llama3": llama3,
    "qwen": qwen,
    "llama2": llama2,
    "mistral": mistral,
    "gemma": gemma,
    "t5": t5,
    "albert": albert,
    "xlm-roberta": xlm_roberta,
    "bert": bert,
    "word-level": word_level,
    "openai-gpt": openai_gpt,
    "slow utf-8": Utf8Tokenizer,
    "slow sentencepiece": SentencePiecesTokenizer,
    "byt5": ByT5Tokenizer,
}
# Those whose tokens can hold a part of a character; of the others every token is whole text.
CUT_CHARACTERS = (
    *("gpt2", "roberta", "llama3", "qwen", "llama2", "mistral", "gemma"),
    *("slow utf-8", "slow sentencepiece", "byt5"),
)


@lru_cache
def tokenizer_of(kind: str) -> Tokenizer:
    """Return the toolkit's tokenizer around one of these kinds."""
    return Tokenizer(KINDS[kind]())
