"""Qwen3's shapes with random weights, written to a folder: for speed, not for sense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common import write_random
from transformers import Qwen3Config

__all__ = ["SHAPES", "ModelShape"]

MAX_LEN = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What tells one size of Qwen3 from another."""

    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    is_tied: bool  # the embeddings are the head's matrix too
    num_kv_heads: int = 8
    head_dim: int = 128
    vocab_size: int = 151_936

    def write(self, folder: Path) -> Path:
        """Write a checkpoint in bf16."""
        config = Qwen3Config(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=MAX_LEN,
            tie_word_embeddings=self.is_tied,
            bos_token_id=None,
            eos_token_id=None,
        )
        return write_random(folder, config)


SHAPES = {
    "qwen3-0.6b": ModelShape(
        hidden=1024, intermediate=3072, num_layers=28, num_heads=16, is_tied=True
    ),
    "qwen3-8b": ModelShape(
        hidden=4096, intermediate=12_288, num_layers=36, num_heads=32, is_tied=False
    ),
    "tiny": ModelShape(
        hidden=64, intermediate=128, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
        vocab_size=10_001, is_tied=True,
    ),
}  # fmt: skip
