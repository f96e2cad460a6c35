"""A tiny random checkpoint with a byte-level tokenizer and a chat template, written to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] or '' }}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = [" the", " and", " love", "Hello", " world", " stop"]


def write_tiny_model(
    folder: Path,
    *,
    chat_template: str = CHAT_TEMPLATE,
    further_specials: Sequence[str] = (),
    max_model_len: int = 512,
) -> Path:
    """Write a seeded two-layer Llama with about 300 tokens, and return its folder."""
    tokenizer = _tokenizer(chat_template, [*SPECIAL_TOKENS, *further_specials])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_model_len,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # An untrained model hardly prefers any token; this one is sure of itself and likes ASCII.
        for token, token_id in tokenizer.get_vocab().items():
            model.lm_head.weight[token_id] *= 20 if token.isascii() and token.isprintable() else 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(chat_template: str, special_tokens: list[str]) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: index for index, character in enumerate(alphabet)}
    merges = []
    for word in WORDS:
        left = word[0].replace(" ", "Ġ")
        for character in word[1:]:
            merges.append((left, character))
            left += character
            vocab.setdefault(left, len(vocab))
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        additional_special_tokens=special_tokens,
        chat_template=chat_template,
    )
