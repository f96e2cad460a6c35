"""Turn generated conversations into training batches.

A batch holds conversations of about the same length, padded on the right: every conversation starts
at position zero and sees only itself, and hardly any work is spent on padding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from toolkit.demo.chat import END, PAD, ROLES, render
from toolkit.demo.corpus import draw_conversations

# So many conversations are drawn and sorted by length together: about 250,000 tokens.
CONVERSATIONS_PER_GROUP = 2048


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids and, where the next token belongs to an answer, its id; elsewhere -100."""

    ids: torch.Tensor  # [num_conversations, length]
    targets: torch.Tensor  # [num_conversations, length]
    num_tokens: int


def answer_targets(ids: list[int], *, assistant_id: int, end_id: int) -> list[int]:
    """Return the next token at each position of an answer, up to its end mark, elsewhere -100.

    >>> answer_targets([7, 8, 1, 3, 5, 6, 1], assistant_id=3, end_id=1)
    [-100, -100, -100, 5, 6, 1, -100]
    """
    targets, inside = [], False
    for position, token in enumerate(ids[:-1]):
        if token == assistant_id:
            inside = True
        elif token == end_id:
            inside = False
        targets.append(ids[position + 1] if inside else -100)
    return [*targets, -100]


def _pad(rows: list[list[int]], filler: int) -> torch.Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([row + [filler] * (length - len(row)) for row in rows])


def draw_group(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, group: int, tokens_per_batch: int
) -> list[Batch]:
    """Draw one group of conversations as shuffled batches; the seed and the group decide them."""
    rng = Random(f"training {seed} {group}")
    drawn = islice(draw_conversations(rng), CONVERSATIONS_PER_GROUP)
    documents = tokenizer([render(each.messages, each.tools) for each in drawn])["input_ids"]
    documents = sorted(
        (ids for ids in documents if len(ids) <= tokenizer.model_max_length), key=len
    )
    marks = {
        "assistant_id": tokenizer.convert_tokens_to_ids(ROLES["assistant"]),
        "end_id": tokenizer.convert_tokens_to_ids(END),
    }
    pad_id = tokenizer.convert_tokens_to_ids(PAD)
    batches, start = [], 0
    while start < len(documents):
        # The longest document of a batch is its last one.
        stop = start + 1
        while (
            stop < len(documents) and (stop + 1 - start) * len(documents[stop]) <= tokens_per_batch
        ):
            stop += 1
        rows = documents[start:stop]
        ids = _pad(rows, pad_id)
        targets = _pad([answer_targets(row, **marks) for row in rows], -100)
        num_tokens = sum(len(row) for row in rows)
        batches.append(Batch(ids, targets, num_tokens))
        start = stop
    rng.shuffle(batches)
    return batches


def draw_batches(
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    worker: int,
    num_workers: int,
    tokens_per_batch: int,
) -> Iterator[Batch]:
    """Draw one worker's batches without end; the workers share out the groups."""
    group = worker
    while True:
        yield from draw_group(tokenizer, seed=seed, group=group, tokens_per_batch=tokens_per_batch)
        group += num_workers
