"""Text is exact: in pieces as at once, with its log-probabilities' bytes, up to a stop string.

The oracle is transformers' own decoding of all tokens; see tests/text/tokenizer_kinds.py.
"""

from __future__ import annotations

import codecs
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from transformers import ByT5Tokenizer

from tests.text.slow_tokenizers import LINES
from tests.text.tokenizer_kinds import CUT_CHARACTERS, KINDS, tokenizer_of
from toolkit.request import CompletionOutput, Logprob, OutputPiece, SamplingParams
from toolkit.server.logprobs import TokenEntry, VisibleTokens
from toolkit.text import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CHARACTERS = "".join(LINES)


@dataclass(frozen=True)
class Played:
    """One sample as an engine makes it: pieces and their entries, one per token and an end."""

    text: str
    pieces: list[str]
    entries: list[TokenEntry]
    num_tokens: int
    stop: str | None


def play(tokenizer: Tokenizer, token_ids: Sequence[int], params: SamplingParams) -> Played:
    """Push tokens until a stop string or the end; check what must hold for every sample."""
    text = tokenizer.output_text([], params)
    visible = visible_tokens(tokenizer, params)
    pieces: list[str] = []
    entries: list[TokenEntry] = []
    stop, num_tokens = None, 0
    for token_id in token_ids:
        num_tokens += 1
        stop = text.push(token_id, check_stop=True)
        is_last = stop is not None or num_tokens == len(token_ids)
        if is_last:
            text.finish()
        pieces.append(text.take())
        piece = OutputPiece(
            request_id="req-0",
            index=0,
            text=pieces[-1],
            token_ids=(token_id,),
            logprobs=[{token_id: Logprob(-1.0)}],
            finish_reason=("stop" if stop else "length") if is_last else None,
            stop_reason=stop,
        )
        entries += visible.take(piece)
        if is_last:
            break
    assert "".join(pieces) == text.text
    used = token_ids[:num_tokens]
    assert entries == whole_entries(tokenizer, used, params, text=text.text, stop=stop)
    return Played(text.text, pieces, entries, num_tokens, stop)


def visible_tokens(tokenizer: Tokenizer, params: SamplingParams) -> VisibleTokens:
    spelling = tokenizer.spelling(skip_special_tokens=params.skip_special_tokens)
    stops = {*tokenizer.eos_token_ids, *(params.stop_token_ids or ())}
    hidden = () if params.include_stop_str_in_output else stops
    return VisibleTokens(spelling, hidden_stop_ids=hidden)


def whole_entries(
    tokenizer: Tokenizer,
    token_ids: Sequence[int],
    params: SamplingParams,
    *,
    text: str,
    stop: str | None,
) -> list[TokenEntry]:
    """The entries of an answer that is not streamed."""
    answer = CompletionOutput(
        index=0,
        text=text,
        token_ids=tuple(token_ids),
        finish_reason="stop" if stop else "length",
        stop_reason=stop,
        logprobs=[{token_id: Logprob(-1.0)} for token_id in token_ids],
    )
    return visible_tokens(tokenizer, params).take(answer) if token_ids else []


def joined(entries: Sequence[TokenEntry]) -> bytes:
    return b"".join(entry.bytes for entry in entries)


def random_ids(rng: random.Random, tokenizer: Tokenizer) -> list[int]:
    """Any tokens in any order: bytes that are no UTF-8, special tokens, ids without a token."""
    num_ids = len(tokenizer)
    if tokenizer.backend.is_fast:
        num_ids += 3  # models pad their vocabulary
    elif isinstance(tokenizer.backend, ByT5Tokenizer):
        num_ids = 259  # its own decoding fails on the ids of added tokens
    special = sorted(tokenizer.token_bytes.special_ids & set(range(num_ids)))
    size = rng.randint(0, 25)
    if rng.random() < 0.3:
        return [rng.choice((rng.randrange(num_ids), rng.choice(special))) for _ in range(size)]
    return rng.choices(range(num_ids), k=size)


def cut_text_ids(rng: random.Random, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a real text, from anywhere to anywhere."""
    line = rng.choice(LINES)
    if rng.random() < 0.5:
        line = "".join(rng.choices(CHARACTERS, k=rng.randint(1, 25)))
    ids = tokenizer.encode(line, add_special_tokens=rng.random() < 0.3)
    first = rng.randint(0, len(ids))
    return ids[first : first + rng.randint(0, 25)]


def sequences(kind: str, *, seed: int, count: int):
    """Token sequences of both sorts, with both settings of skip_special_tokens."""
    tokenizer, rng = tokenizer_of(kind), random.Random(seed)
    for index in range(count):
        make = random_ids if index % 2 else cut_text_ids
        yield tokenizer, make(rng, tokenizer), bool(index // 2 % 2)


def check_whole(kind: str, *, seed: int, count: int) -> Counter[str]:
    """Check texts without stop strings; return how often what is interesting came up."""
    seen: Counter[str] = Counter()
    for tokenizer, ids, skip in sequences(kind, seed=seed, count=count):
        played = play(tokenizer, ids, SamplingParams(skip_special_tokens=skip))
        whole = tokenizer.backend.decode(
            ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
        )
        assert played.text == whole == tokenizer.decode(ids, skip_special_tokens=skip)
        assert joined(played.entries).decode(errors="replace") == whole
        assert len(played.entries) == len(ids)
        if REPLACEMENT not in whole:
            assert joined(played.entries) == whole.encode()
        assert [entry.start for entry in played.entries] == starts(played.entries)
        seen["sequences"] += 1
        seen["invalid"] += REPLACEMENT in whole
        seen["special"] += not tokenizer.token_bytes.special_ids.isdisjoint(ids)
        seen["waited"] += any(not piece for piece in played.pieces)
    return seen


def starts(entries: Sequence[TokenEntry]) -> list[int]:
    """The character in which each entry's first byte lies, by decoding all bytes before it."""
    before, found = b"", []
    for entry in entries:
        if entry.bytes:
            found.append(len((before + entry.bytes[:1]).decode(errors="replace")) - 1)
        else:
            found.append(len(codecs.getincrementaldecoder("utf-8")("replace").decode(before)))
        before += entry.bytes
    return found


def check_cut(kind: str, *, seed: int, count: int) -> Counter[str]:
    """Check texts with a stop string that is somewhere in them, mostly."""
    seen: Counter[str] = Counter()
    rng = random.Random(seed + 1)
    for tokenizer, ids, skip in sequences(kind, seed=seed, count=count):
        whole = tokenizer.decode(ids, skip_special_tokens=skip)
        stop = random_stop(rng, whole)
        params = SamplingParams(
            stop=[stop], skip_special_tokens=skip, include_stop_str_in_output=rng.random() < 0.5
        )
        played = play(tokenizer, ids, params)
        num_tokens, text, before = cut_by_hand(tokenizer, ids, params, stop=stop)
        assert (played.num_tokens, played.text) == (num_tokens, text)
        assert joined(played.entries).decode(errors="replace") == text
        if REPLACEMENT not in text:
            assert joined(played.entries) == text.encode()
        seen["sequences"] += 1
        seen["invalid"] += REPLACEMENT in text
        seen["stopped"] += played.stop == stop
        if played.stop is not None:
            kept = len(stop) if params.include_stop_str_in_output else 0
            seen["across an edge"] += len(text) - kept < before
            seen["inside a token"] += len(text) - kept + len(stop) < len(
                tokenizer.decode(ids[:num_tokens], skip_special_tokens=skip)
            )
    return seen


def random_stop(rng: random.Random, text: str) -> str:
    """A part of the text, or anything."""
    if rng.random() < 0.8:
        start = rng.randint(0, len(text))
        found = text[start : start + rng.randint(1, 6)].strip(REPLACEMENT)
        # What is no character cannot be asked for: it may be a character's beginning.
        if found and REPLACEMENT not in found:
            return found
    return "".join(rng.choices(CHARACTERS, k=rng.randint(1, 2)))


def cut_by_hand(
    tokenizer: Tokenizer, ids: Sequence[int], params: SamplingParams, *, stop: str
) -> tuple[int, str, int]:
    """Decode more and more tokens until the stop is in the text.

    Returns how many tokens that takes, the text, and its length without the last token.
    """
    whole = ""
    for count in range(1, len(ids) + 1):
        before = len(whole.rstrip(REPLACEMENT))
        whole = tokenizer.decode(ids[:count], skip_special_tokens=params.skip_special_tokens)
        at = whole.find(stop)
        if at >= 0:
            end = at + (len(stop) if params.include_stop_str_in_output else 0)
            return count, whole[:end], before
    return len(ids), whole, len(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_and_bytes_are_the_whole_text(kind: str) -> None:
    seen = check_whole(kind, seed=0, count=200)
    assert seen["sequences"] == 200
    assert seen["special"] > 0
    assert kind not in CUT_CHARACTERS or seen["waited"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_cuts_text_and_bytes_alike(kind: str) -> None:
    seen = check_cut(kind, seed=1, count=200)
    assert min(seen["stopped"], seen["across an edge"], seen["inside a token"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_five_thousand_sequences_of_every_kind(kind: str) -> None:
    seen = check_whole(kind, seed=2, count=5_000)
    assert seen["sequences"] == 5_000
    assert seen["special"] > 100
    # ByT5's own decoding drops what is no UTF-8.
    assert kind not in CUT_CHARACTERS or kind == "byt5" or seen["invalid"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_five_thousand_sequences_with_stop_strings(kind: str) -> None:
    seen = check_cut(kind, seed=3, count=5_000)
    assert seen["sequences"] == 5_000
    assert min(seen["stopped"], seen["across an edge"], seen["inside a token"]) > 100
