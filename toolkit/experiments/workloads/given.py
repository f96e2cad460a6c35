"""Prompts that are given: as tokens, as the named blocks of a trace, or cut from a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads.columns import Columns, Ragged
from toolkit.experiments.workloads.content import Content, block_names
from toolkit.experiments.workloads.randomness import Array, token_ids, uniform_at

__all__ = ["Corpus", "Encode", "GivenBlocks", "GivenTokens", "encoder"]

Encode = Callable[[str], Sequence[int]]

# So many tokens name a block in the sum of what is shared between given prompts.
_SHARED_BLOCK = 16
_POOL_TOKENS = 65_536


def encoder(tokenizer: Any) -> Encode:
    """Return the function of a tokenizer that turns text into token ids.

    A tokenizer is that function itself, or anything with a method ``encode`` that returns ids:
    ``llm.tokenizer`` and transformers' do.
    """
    encode = getattr(tokenizer, "encode", tokenizer)
    if not callable(encode):
        raise InvalidConfig(
            f"tokenizer={tokenizer!r} encodes no text: give a function from text to token ids, or "
            "something with a method encode, like llm.tokenizer"
        )
    return encode


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class GivenTokens(Content):
    """Prompts whose tokens are known."""

    prompts: Ragged

    shares = True

    def token_ids(self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int) -> Array:
        """See `Content`; raises InvalidConfig where the vocabulary lacks a token."""
        return _in_vocabulary(self.prompts[arrival_id], vocab_size)

    def num_shared_tokens(self, columns: Columns, seed: int) -> Array:
        """See `Content`; in blocks of 16 tokens."""
        shared: Array = np.zeros(len(columns), np.int64)
        seen: set[bytes] = set()
        for arrival_id in range(len(columns)):
            name, still = b"", True
            prompt = self.prompts[arrival_id]
            for end in range(_SHARED_BLOCK, len(prompt) + 1, _SHARED_BLOCK):
                tokens = prompt[end - _SHARED_BLOCK : end]
                name = blake2b(name + tokens.tobytes(), digest_size=16).digest()
                still = still and name in seen
                shared[arrival_id] += still * _SHARED_BLOCK
                seen.add(name)
        return shared

    def scaled(self, factor: float) -> Content:
        """Refuse: these prompts are as long as they are."""
        raise InvalidConfig("prompts whose tokens are given have no other lengths; scale the rest")

    def head(self, num_requests: int) -> Content:
        """See `Content`."""
        return GivenTokens(self.prompts.head(num_requests))

    def __repr__(self) -> str:
        return f"GivenTokens({_digest(self.prompts)})"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class GivenBlocks(Content):
    """Prompts known by the names of their blocks: equal ids are equal tokens, all before included.

    The last block of a prompt may be a part of one. Tokens are made up from the ids, so prompts
    share exactly what the trace says they share.
    """

    ids: Ragged
    block_tokens: int

    shares = True

    def token_ids(self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int) -> Array:
        """See `Content`."""
        left = int(columns.num_prompt_tokens[arrival_id])
        parts = []
        for block in self.ids[arrival_id].tolist():
            num = min(left, self.block_tokens)
            parts.append(token_ids(seed, "block", block, num, vocab_size=vocab_size))
            left -= num
        return np.concatenate(parts)

    def block_keys(
        self, columns: Columns, arrival_id: int, *, block_size: int | None, seed: int
    ) -> tuple[bytes, ...] | None:
        """See `Content`; raises InvalidConfig if ``block_size`` does not divide the trace's."""
        block_size = block_size or self.block_tokens
        if self.block_tokens % block_size:
            raise InvalidConfig(
                f"block_size={block_size} does not divide the trace's blocks of "
                f"{self.block_tokens} tokens"
            )
        parts = range(self.block_tokens // block_size)
        ids = self.ids[arrival_id].tolist()
        names = tuple(name for block in ids for name in block_names(b"t", block, parts))
        return names[: int(columns.num_prompt_tokens[arrival_id]) // block_size]

    def num_shared_tokens(self, columns: Columns, seed: int) -> Array:
        """See `Content`."""
        # An id stands for all before it too, so one that was seen is a prefix that was seen.
        values = self.ids.values
        is_repeated: Array = np.ones(len(values), bool)
        is_repeated[np.unique(values, return_index=True)[1]] = False
        rows: Array = np.repeat(np.arange(len(columns)), self.ids.lengths)
        num_blocks = np.bincount(rows, weights=is_repeated, minlength=len(columns))
        shared = num_blocks.astype(np.int64) * self.block_tokens
        return np.minimum(shared, columns.num_prompt_tokens)

    def scaled(self, factor: float) -> Content:
        """See `Content`; blocks are scaled too, and must stay whole numbers of tokens."""
        block_tokens = self.block_tokens * factor
        if round(block_tokens) < 1 or abs(block_tokens - round(block_tokens)) > 1e-9:
            raise InvalidConfig(
                f"lengths={factor} makes {block_tokens:g} tokens of the trace's blocks of "
                f"{self.block_tokens}: choose a factor that makes a whole number"
            )
        return GivenBlocks(self.ids, round(block_tokens))

    def head(self, num_requests: int) -> Content:
        """See `Content`."""
        return GivenBlocks(self.ids.head(num_requests), self.block_tokens)

    def __repr__(self) -> str:
        return f"GivenBlocks({_digest(self.ids)}, block_tokens={self.block_tokens})"


class Corpus(Content):
    """Prompts cut from a text at random places: what a model for this text is used to.

    Args:
        tokenizer: What turns the text into tokens: ``llm.tokenizer``, a transformers tokenizer, or
            a function from text to ids.
        texts: The text, in pieces; by default the conversations that the bundled model was trained
            on. It is read until there are 65,536 tokens.

    Raises:
        InvalidConfig: there is no text, or nothing that encodes it.
    """

    def __init__(self, tokenizer: Any, texts: Iterable[str] | None = None) -> None:
        encode = encoder(tokenizer)
        if texts is None:
            from toolkit.llm import demo_texts  # loads torch, which other texts do not need

            texts = demo_texts()
        pool: list[int] = []
        for text in texts:
            pool += encode(text)
            if len(pool) >= _POOL_TOKENS:
                break
        if not pool:
            raise InvalidConfig("the corpus holds no tokens: give texts= with something in it")
        self._pool = np.asarray(pool[:_POOL_TOKENS], np.int64)

    def token_ids(self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int) -> Array:
        """See `Content`; raises InvalidConfig where the vocabulary lacks a token."""
        start = int(uniform_at(seed, "place", arrival_id) * len(self._pool))
        places = np.arange(start, start + int(columns.num_prompt_tokens[arrival_id]))
        return _in_vocabulary(self._pool[places % len(self._pool)], vocab_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Corpus) and np.array_equal(self._pool, other._pool)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        digest = blake2b(self._pool.tobytes(), digest_size=8).hexdigest()
        return f"Corpus(<{len(self._pool):,} tokens {digest}>)"


def _digest(rows: Ragged) -> str:
    digest = blake2b(rows.offsets.tobytes(), digest_size=8)
    digest.update(np.ascontiguousarray(rows.values).tobytes())
    return f"<{len(rows):,} rows {digest.hexdigest()}>"


def _in_vocabulary(token_ids: Array, vocab_size: int) -> Array:
    if len(token_ids) and int(token_ids.max()) >= vocab_size:
        raise InvalidConfig(
            f"the prompts hold token {int(token_ids.max())}, which a vocabulary of {vocab_size} "
            "lacks: they were made with another tokenizer"
        )
    return token_ids
