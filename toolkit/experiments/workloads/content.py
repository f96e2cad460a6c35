"""What prompts say: random tokens, shared beginnings, the turns of chats.

A content makes a prompt when it is asked for, from the seed and the request's place in the load, so
a load of a million requests holds no tokens. Where prompts have something in common they really
share those tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads.columns import Columns
from toolkit.experiments.workloads.randomness import Array, token_ids, uniform_at, uniforms

__all__ = ["RANDOM_TOKENS", "ChatTurns", "Content", "RandomTokens", "SharedPrefix", "block_names"]


class Content:
    """Says what the prompts of a load hold; subclass it for prompts of your own.

    A request has tokens of its own, whose number is drawn, and maybe others before them, which the
    content adds.
    """

    shares = False  # whether prompts may begin alike, so that a prefix cache has something to find
    num_turns = 1  # requests of one chain, which arrive one after another
    think_s = 0.0  # between the end of a turn and the next

    def token_ids(self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int) -> Array:
        """Return the prompt of a request: ``columns.num_prompt_tokens[arrival_id]`` tokens."""
        raise NotImplementedError

    def block_keys(
        self, columns: Columns, arrival_id: int, *, block_size: int | None, seed: int
    ) -> tuple[bytes, ...] | None:
        """Return names of the prompt's full blocks, equal where all tokens up to there are equal.

        None where only the tokens themselves can tell; ``block_size`` may be left to the content.
        """
        return None

    def num_prompt_tokens(self, own: Array, output: Array) -> Array:
        """Return the length of each prompt, given the tokens of its own and of its output."""
        return own

    def num_own_tokens(self, prompt: Array, output: Array) -> Array:
        """Return how many tokens of each prompt are its own."""
        return prompt

    def num_shared_tokens(self, columns: Columns, seed: int) -> Array:
        """Return how many tokens each prompt has in common with the beginning of earlier ones."""
        return np.zeros(len(columns), np.int64)

    def tags(self, num_requests: int, seed: int) -> Mapping[str, Array]:
        """Return what this content tells about each request, by tag."""
        return {}

    def scaled(self, factor: float) -> Content:
        """Return the content of the load whose lengths are multiplied by ``factor``."""
        return self

    def head(self, num_requests: int) -> Content:
        """Return the content of the first requests alone."""
        return self


def block_names(kind: bytes, owner: int, places: range) -> tuple[bytes, ...]:
    """Return the names of the blocks at those places of a sequence of tokens, 13 bytes each.

    ``kind`` is a byte and ``owner`` a number that tell the sequence apart from all others.
    """
    stem = kind + owner.to_bytes(8, "little")
    return tuple(stem + place.to_bytes(4, "little") for place in places)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and value is not True and int(value) >= 1


@dataclass(frozen=True, slots=True)
class RandomTokens(Content):
    """Random tokens that share no beginning: a prefix cache finds nothing."""

    def token_ids(self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int) -> Array:
        """See `Content`."""
        num = int(columns.num_prompt_tokens[arrival_id])
        return token_ids(seed, "prompt", arrival_id, num, vocab_size=vocab_size)


RANDOM_TOKENS = RandomTokens()


@dataclass(frozen=True, slots=True)
class SharedPrefix(Content):
    """Random tokens behind a prefix of ``num_tokens`` that all requests of a group share.

    The prefix comes on top of the lengths that are drawn, as in vLLM's and SGLang's benchmarks. The
    group of a request is drawn evenly; with several groups it is the tag ``group``.
    """

    num_tokens: int
    num_groups: int = 1

    shares = True

    def __post_init__(self) -> None:
        if not (_is_count(self.num_tokens) and _is_count(self.num_groups)):
            raise InvalidConfig(
                f"{self}: a shared prefix has a whole number of tokens and of groups, at least one"
            )

    def token_ids(self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int) -> Array:
        """See `Content`."""
        group = self._group(arrival_id, seed)
        own = int(columns.num_prompt_tokens[arrival_id]) - self.num_tokens
        prefix = token_ids(seed, "prefix", group, self.num_tokens, vocab_size=vocab_size)
        rest = token_ids(seed, "prompt", arrival_id, own, vocab_size=vocab_size)
        return np.concatenate([prefix, rest])

    def block_keys(
        self, columns: Columns, arrival_id: int, *, block_size: int | None, seed: int
    ) -> tuple[bytes, ...] | None:
        """See `Content`."""
        if block_size is None:
            return None
        num_shared = self.num_tokens // block_size
        num = int(columns.num_prompt_tokens[arrival_id]) // block_size
        shared = block_names(b"g", self._group(arrival_id, seed), range(num_shared))
        return shared + block_names(b"r", arrival_id, range(num_shared, num))

    def num_prompt_tokens(self, own: Array, output: Array) -> Array:
        """See `Content`."""
        return own + self.num_tokens

    def num_own_tokens(self, prompt: Array, output: Array) -> Array:
        """See `Content`."""
        return prompt - self.num_tokens

    def num_shared_tokens(self, columns: Columns, seed: int) -> Array:
        """See `Content`."""
        shared: Array = np.full(len(columns), self.num_tokens, np.int64)
        _, firsts = np.unique(self._groups(len(columns), seed), return_index=True)
        shared[firsts] = 0
        return shared

    def tags(self, num_requests: int, seed: int) -> Mapping[str, Array]:
        """See `Content`."""
        if self.num_groups == 1:
            return {}
        return {"group": self._groups(num_requests, seed).astype(object)}

    def _group(self, arrival_id: int, seed: int) -> int:
        return int(uniform_at(seed, "group", arrival_id) * self.num_groups)

    def _groups(self, num_requests: int, seed: int) -> Array:
        return (uniforms(seed, "group", num_requests) * self.num_groups).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ChatTurns(Content):
    """Conversations: each prompt repeats the one before, its answer, and adds a message.

    The lengths drawn are those of messages and answers; arrivals are of conversations, whose turns
    follow ``think_s`` after the answer. A prompt is fixed before the load begins, so the answers in
    it are stand-ins, and a prefix cache finds the prompt of the turn before and not its answer.
    Tags: ``conversation`` and ``turn``, from 0.
    """

    num_turns: int = 4
    think_s: float = 0.0

    shares = True

    def __post_init__(self) -> None:
        if not (_is_count(self.num_turns) and 0 <= self.think_s < np.inf):
            raise InvalidConfig(
                f"{self}: a whole number of turns, at least one, and a time to think of 0 s or more"
            )

    def token_ids(self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int) -> Array:
        """See `Content`."""
        first = arrival_id - arrival_id % self.num_turns
        turns = slice(first, arrival_id + 1)
        output = columns.num_output_tokens[turns]
        own = self.num_own_tokens(columns.num_prompt_tokens[turns], output)
        parts = []
        for turn, num in enumerate(own.tolist()):
            parts.append(token_ids(seed, "prompt", first + turn, num, vocab_size=vocab_size))
            if first + turn < arrival_id:
                num = int(output[turn])
                parts.append(token_ids(seed, "answer", first + turn, num, vocab_size=vocab_size))
        return np.concatenate(parts)

    def block_keys(
        self, columns: Columns, arrival_id: int, *, block_size: int | None, seed: int
    ) -> tuple[bytes, ...] | None:
        """See `Content`; all prompts of a conversation are beginnings of its last."""
        if block_size is None:
            return None
        num = int(columns.num_prompt_tokens[arrival_id]) // block_size
        return block_names(b"c", arrival_id // self.num_turns, range(num))

    def num_prompt_tokens(self, own: Array, output: Array) -> Array:
        """See `Content`."""
        grown = np.cumsum(own.astype(np.int64) + output) - output  # since the load began
        firsts: Array = np.arange(len(own)) // self.num_turns * self.num_turns
        return grown - (grown[firsts] - own[firsts])

    def num_own_tokens(self, prompt: Array, output: Array) -> Array:
        """See `Content`."""
        own: Array = prompt.astype(np.int64)
        later = np.arange(len(prompt)) % self.num_turns > 0
        own[later] -= (prompt + output)[:-1][later[1:]]
        return own

    def num_shared_tokens(self, columns: Columns, seed: int) -> Array:
        """See `Content`."""
        shared: Array = np.roll(columns.num_prompt_tokens, 1).astype(np.int64)
        shared[:: self.num_turns] = 0
        return shared

    def tags(self, num_requests: int, seed: int) -> Mapping[str, Array]:
        """See `Content`."""
        places = np.arange(num_requests)
        return {
            "conversation": (places // self.num_turns).astype(object),
            "turn": (places % self.num_turns).astype(object),
        }
