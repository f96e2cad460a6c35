"""Compile grammars for one vocabulary: refuse at once what is wrong, do the rest on a thread.

Whether a grammar is sound, and whether any text of it ends, does not depend on the vocabulary: that
is found out with single bytes for tokens, in about a millisecond, by whoever adds the request. For
the model's own tokens it is compiled on a thread, and the first time these are read as well;
meanwhile the request waits with cause "grammar".
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import groupby
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits
from numpy.typing import NDArray

from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar.effort import Effort
from toolkit.sampling.grammar.ending import SEARCH_CALLS, EndingFinder, words_of
from toolkit.sampling.grammar.source import grammar_source
from toolkit.sampling.grammar.token_costs import TokenCosts
from toolkit.sampling.grammar.vocabulary import TokenTable, Vocabulary, byte_table, model_table
from toolkit.structured_outputs import StructuredOutputsParams

__all__ = ["CompiledGrammar", "GrammarCompiler"]

# Grammars that are kept for the next request that asks for the same, and how many characters they
# have together: one takes some 100 kB, a long one some 30 bytes for each character.
_MAX_KEPT = 128
_MAX_KEPT_CHARACTERS = 2_000_000
# Refusals that are kept, so that what is asked for again and again is not searched again.
_MAX_REFUSALS = 256
# How many bytes an ending may have, and how long it may take a processor to find one: what a
# sound form needs is bounded by the calls, this is for grammars that are slow to follow.
_MAX_ENDING_BYTES = 4096
_SEARCH_CPU_S = 1.0
# Forms of which an answer is found where there is one. Of a regular expression there always is,
# found or not.
_MUST_END = ("json", "json_object", "choice", "grammar")
_QUIET = 0
# Where in our own text a message begins and ends: the user knows another one.
_PLACE = re.compile(
    r"^at 1\(\d+\): |failed to compile JSON schema: |\n +1 \| .*(\n *\^)?", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class CompiledGrammar:
    """A grammar for one vocabulary, before its first token."""

    table: TokenTable
    costs: TokenCosts
    words: Sequence[list[int]]
    matcher: Any
    first_mask: NDArray[np.uint32]
    ending: list[int] | None  # tokens of a short answer, where one was found

    def new_matcher(self) -> Any:
        """Return a matcher of one's own."""
        return self.matcher.deep_copy()

    def new_finder(self) -> EndingFinder:
        """Return what finds the endings of one answer."""
        return EndingFinder(self.costs, self.words)


class GrammarCompiler:
    """Turns forms of answers into grammars and keeps them; safe to call from any thread.

    Args:
        vocabulary: The model's tokens; read when the first grammar is compiled.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._num_characters = 0
        self._refusals: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="toolkit-grammar")

    @property
    def vocab_size(self) -> int:
        """How many logits the model has."""
        return self._vocabulary.size

    @property
    def num_words(self) -> int:
        """How many 32-bit words a mask of the model's tokens takes."""
        return self._model.table.num_words

    def compile(
        self, params: StructuredOutputsParams, *, always_closes: bool
    ) -> Future[CompiledGrammar]:
        """Check a form and begin to compile it, or return what was begun before.

        Args:
            params: The form.
            always_closes: Whether free strings of JSON are bounded, so that they end.

        Raises:
            InvalidParameter: the form is malformed, cannot be enforced, or no answer can have it.
        """
        # A digest: what is kept of a form that is refused should not be as long as the form.
        key = sha256(f"{always_closes} {params.key}".encode()).digest()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept.grammar
            refusal = self._refusals.get(key)
        if refusal is not None:
            raise InvalidParameter(refusal, param="structured_outputs")
        try:
            source = grammar_source(params, always_closes=always_closes)
            ending = self._check(source, params)
        except InvalidParameter as error:
            self._keep_refusal(key, str(error))
            raise
        with self._lock:
            if key not in self._kept:
                grammar = self._pool.submit(self._compile, source, ending)
                self._kept[key] = _Kept(grammar, len(source))
                self._num_characters += len(source)
            grammar = self._kept[key].grammar
            self._drop_oldest()
            return grammar

    def _drop_oldest(self) -> None:
        """Drop grammars until those that are kept are few and small enough."""
        while len(self._kept) > _MAX_KEPT or (
            self._num_characters > _MAX_KEPT_CHARACTERS and len(self._kept) > 1
        ):
            _, dropped = self._kept.popitem(last=False)
            self._num_characters -= dropped.num_characters

    def _keep_refusal(self, key: bytes, message: str) -> None:
        with self._lock:
            self._refusals[key] = message
            if len(self._refusals) > _MAX_REFUSALS:
                self._refusals.popitem(last=False)

    def close(self) -> None:
        """End the thread and drop the grammars."""
        self._pool.shutdown(cancel_futures=True)
        self._kept.clear()

    @cached_property
    def _bytes(self) -> _Target:
        return _Target(byte_table(self._vocabulary))

    @cached_property
    def _model(self) -> _Target:
        return _Target(model_table(self._vocabulary))

    def _check(self, source: str, params: StructuredOutputsParams) -> list[int] | None:
        """Return a short answer in single bytes; None where a search would take too long.

        Raises:
            InvalidParameter: the grammar does not compile, or has no answer that ends.
        """
        matcher = self._bytes.matcher(source)
        if params.choice is not None:
            return self._bytes.table.cut(min(params.choice, key=len))
        effort = Effort(SEARCH_CALLS, cpu_s=_SEARCH_CPU_S)
        finder = EndingFinder(self._bytes.costs, self._bytes.words(source))
        ending = finder.find(matcher, limit=_MAX_ENDING_BYTES, effort=effort)
        if ending is None and not effort.is_spent and params.form in _MUST_END:
            raise InvalidParameter(
                "structured_outputs: no answer that ends was found for this form: it asks for what "
                "contradicts itself, refers to itself without a way out, or needs more than "
                f"{_MAX_ENDING_BYTES} bytes",
                param="structured_outputs",
            )
        return ending

    def _compile(self, source: str, ending: list[int] | None) -> CompiledGrammar:
        target = self._model
        matcher = target.matcher(source)
        # It may have a word more than there are tokens for.
        packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint32)
        first_mask = packed[: target.table.num_words]
        grammar = CompiledGrammar(
            table=target.table,
            costs=target.costs,
            words=target.words(source),
            matcher=matcher,
            first_mask=first_mask,
            ending=None,
        )
        return grammar if ending is None else replace(grammar, ending=self._spell(ending, grammar))

    def _spell(self, ending: list[int], grammar: CompiledGrammar) -> list[int] | None:
        """Return a short answer in the model's tokens; None if they do not write one."""
        table = self._bytes.table
        spelled: list[int] = []
        for is_special, group in groupby(ending, table.special_token_ids.__contains__):
            run = list(group)
            text = b"".join(table.tokens[token_id] for token_id in run)
            spelled += run if is_special else grammar.table.cut(text)
        matcher = grammar.new_matcher()
        if matcher.consume_tokens(spelled) and matcher.is_accepting():
            return spelled
        effort = Effort(SEARCH_CALLS, cpu_s=_SEARCH_CPU_S)
        matcher = grammar.new_matcher()
        return grammar.new_finder().find(matcher, limit=_MAX_ENDING_BYTES, effort=effort)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A grammar that is kept, and how long its source is."""

    grammar: Future[CompiledGrammar]
    num_characters: int


class _Target:
    """A table of tokens to compile for."""

    def __init__(self, table: TokenTable) -> None:
        self.table = table
        self.costs = TokenCosts(table)
        # Messages without the parser's whole state.
        self._limits = LLParserLimits(verbose_errors=False)

    def words(self, source: str) -> list[list[int]]:
        """Return the texts in a grammar, as tokens."""
        return [self.table.cut(word) for word in words_of(source)]

    def matcher(self, source: str) -> Any:
        """Compile a grammar; raise InvalidParameter if it is none."""
        matcher = LLMatcher(self.table.for_grammars, source, log_level=_QUIET, limits=self._limits)
        if matcher.is_error():
            raise InvalidParameter(
                f"structured_outputs: {_reason(matcher.get_error())}", param="structured_outputs"
            )
        return matcher


def _reason(message: str) -> str:
    """Say what llguidance found wrong, in our words where they are clearer."""
    found = _PLACE.sub("", message.strip())
    unenforced = re.match(r"Unimplemented keys: \[(.*)\]", found)
    if unenforced is not None:
        return f"the JSON schema has keywords that cannot be enforced here: {unenforced[1]}"
    return found[:500]
