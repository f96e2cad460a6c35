"""A table of one request's tokens: text as it reads, probability, rank, entropy, source.

What an answer holds and what a record holds are put together: either may lack what the other has.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from toolkit.errors import InvalidRequest
from toolkit.request import Request, RequestOutput

__all__ = [
    "COLUMNS",
    "SOURCES",
    "Answer",
    "ShownToken",
    "Vocabulary",
    "shown_tokens",
    "token_table",
]

# What `tokens.source` may say, in the order of the legend.
SOURCES = ("sampled", "greedy", "grammar", "draft", "forced")
COLUMNS = (
    "part",  # "prompt" or "output"
    "index",  # within its part
    "position",
    "token_id",
    "text",
    "kind",  # "text", "special" or "bytes": a part of a character
    "step",
    "logprob_raw",
    "rank_raw",
    "entropy_nats",
    "source",
    "is_cached",  # a prompt token whose keys and values came from the prefix cache
)


class Vocabulary(Protocol):
    """What is asked of a tokenizer."""

    token_bytes: Any

    def token_text(self, token_id: int) -> str:
        """Return one token's own text."""
        ...


class ShownToken(NamedTuple):
    """A token's text in its place; of a kind "text", "special" or "bytes"."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One sample of a request: what is known of it, from an output or from a record."""

    request_id: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...] = ()
    num_hidden: int = 0  # tokens of a prompt of which only the length is known
    num_cached_tokens: int = 0
    text: str = ""
    logprobs: Sequence[dict[int, Any]] | None = None
    prompt_logprobs: Sequence[dict[int, Any] | None] | None = None

    @classmethod
    def of(cls, output: RequestOutput | Request, sample: int = 0) -> Answer:
        """Take one sample of an answer, finished or not.

        Raises:
            InvalidRequest: it has no such sample, or no tokens at all.
        """
        if isinstance(output, Request):
            whole, ids = output.output, [one.id for one in output.samples]
        else:
            whole, ids = output, [output.request_id]
        completions = whole.outputs
        if not isinstance(completions, list):
            raise InvalidRequest(f"{ids[0]} is an embedding: it has no tokens to show")
        if not 0 <= sample < len(completions):
            raise InvalidRequest(
                f"{ids[0]} has {len(completions)} samples, numbered from 0; there is no {sample}"
            )
        chosen = completions[sample]
        return cls(
            request_id=ids[sample] if sample < len(ids) else f"{ids[0]}.{sample}",
            token_ids=tuple(chosen.token_ids),
            prompt_token_ids=tuple(whole.prompt_token_ids),
            num_cached_tokens=whole.num_cached_tokens,
            text=chosen.text,
            logprobs=chosen.logprobs,
            prompt_logprobs=whole.prompt_logprobs,
        )


def shown_tokens(token_ids: Sequence[int], vocabulary: Vocabulary | None) -> list[ShownToken]:
    """Return how a row of tokens reads.

    A character that is spread over several tokens stands on the one that completes it; those
    before it show their bytes. Without a vocabulary a token is shown by its number.
    """
    if vocabulary is None:
        return [ShownToken(f"⟨{token_id}⟩", "special") for token_id in token_ids]
    return list(_reading(token_ids, vocabulary))


def _reading(token_ids: Sequence[int], vocabulary: Vocabulary) -> Iterator[ShownToken]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    token_bytes = vocabulary.token_bytes
    for token_id in token_ids:
        if token_id in token_bytes.special_ids:
            decoder.reset()
            yield ShownToken(vocabulary.token_text(token_id), "special")
            continue
        own = token_bytes(token_id)
        text = decoder.decode(own)
        if text or not own:
            yield ShownToken(text, "text")
        else:
            yield ShownToken(own.hex(" ").upper(), "bytes")


def token_table(
    answer: Answer,
    *,
    vocabulary: Vocabulary | None = None,
    recorded: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a row per token of prompt and output, with the columns of COLUMNS.

    Args:
        answer: The sample.
        vocabulary: Gives the tokens their texts.
        recorded: The rows of ``record.tokens`` that belong to the sample; the answer may have more
            tokens, or the record may have dropped some.
    """
    num_prompt = len(answer.prompt_token_ids)
    token_ids = [*answer.prompt_token_ids, *answer.token_ids]
    count = len(token_ids)
    is_prompt = np.arange(count) < num_prompt
    table = pd.DataFrame(
        {
            "part": np.where(is_prompt, "prompt", "output"),
            "index": np.where(is_prompt, np.arange(count), np.arange(count) - num_prompt),
            "position": np.arange(count) + answer.num_hidden,
            "token_id": np.asarray(token_ids, dtype=np.int64),
            "text": pd.Series([""] * count, dtype=object),
            "kind": pd.Series(["text"] * count, dtype=object),
            "step": pd.Series([pd.NA] * count, dtype="Int64"),
            "logprob_raw": np.full(count, np.nan),
            "rank_raw": pd.Series([pd.NA] * count, dtype="Int64"),
            "entropy_nats": np.full(count, np.nan),
            "source": pd.Series([None] * count, dtype=object),
            "is_cached": np.arange(count) < min(answer.num_cached_tokens, num_prompt),
        }
    )
    _fill_texts(table, answer, vocabulary)
    _fill_logprobs(table, answer)
    if recorded is not None and len(recorded):
        _fill_recorded(table, recorded, num_prompt, has_texts=vocabulary is not None)
    return table[list(COLUMNS)]


def _fill_texts(table: pd.DataFrame, answer: Answer, vocabulary: Vocabulary | None) -> None:
    # The prompt ends before the output begins: no character goes across.
    shown = [
        *shown_tokens(answer.prompt_token_ids, vocabulary),
        *shown_tokens(answer.token_ids, vocabulary),
    ]
    if vocabulary is None and answer.logprobs is not None:
        for place, entry in enumerate(answer.logprobs, start=len(answer.prompt_token_ids)):
            chosen = entry.get(int(table["token_id"].iat[place]))
            if chosen is not None and chosen.decoded_token is not None:
                shown[place] = _own_text(chosen.decoded_token)
    table["text"] = [token.text for token in shown]
    table["kind"] = [token.kind for token in shown]


def _own_text(text: str) -> ShownToken:
    """Return how a token reads of which only the text that it has alone is known."""
    return ShownToken(text, "bytes" if "\N{REPLACEMENT CHARACTER}" in text else "text")


def _fill_logprobs(table: pd.DataFrame, answer: Answer) -> None:
    entries: list[dict[int, Any] | None] = [
        *_padded(answer.prompt_logprobs, len(answer.prompt_token_ids)),
        *_padded(answer.logprobs, len(answer.token_ids)),
    ]
    chosen = [
        entry.get(token_id) if entry else None
        for entry, token_id in zip(entries, table["token_id"].tolist(), strict=True)
    ]
    table["logprob_raw"] = [np.nan if one is None else one.logprob for one in chosen]
    ranks = [None if one is None else one.rank for one in chosen]
    table["rank_raw"] = pd.array(ranks, dtype="Int64")


def _padded(entries: Sequence[Any] | None, count: int) -> list[Any]:
    known = list(entries or ())[:count]
    return known + [None] * (count - len(known))


def _fill_recorded(
    table: pd.DataFrame, recorded: pd.DataFrame, num_prompt: int, *, has_texts: bool
) -> None:
    """Add what the record knows: the step and the source, and numbers that the answer lacks."""
    own = recorded.set_index("index").reindex(table["index"].to_numpy()[num_prompt:])
    rows = table.index[num_prompt:]
    for name in ("step", "logprob_raw", "rank_raw", "entropy_nats"):
        if name in own:
            there = pd.Series(own[name].to_numpy(dtype=float, na_value=np.nan), index=rows)
            known = table.loc[rows, name]
            table.loc[rows, name] = known.where(known.notna(), there.astype(known.dtype))
    if "source" in own:
        table.loc[rows, "source"] = own["source"].to_numpy()
    if not has_texts and "text" in own:
        for row, text in zip(rows, own["text"], strict=True):
            if isinstance(text, str):
                table.at[row, "text"], table.at[row, "kind"] = _own_text(text)
