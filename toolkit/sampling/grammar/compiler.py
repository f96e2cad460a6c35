"""Compile grammars for one vocabulary: refuse at once what is wrong, do the rest on a thread.

Whether a grammar is sound, and whether any text of it ends, does not depend on the vocabulary: that
is found out with single bytes for tokens, in about a millisecond, by whoever adds the request. For
the model's own tokens it is compiled on a thread, and the first time these are read as well;
meanwhile the request waits with cause "grammar".
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits
from numpy.typing import NDArray

from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar.ending import EndingFinder, TokenCosts, words_of
from toolkit.sampling.grammar.source import grammar_source
from toolkit.sampling.grammar.vocabulary import TokenTable, Vocabulary, byte_table, model_table
from toolkit.structured_outputs import StructuredOutputsParams

__all__ = ["CompiledGrammar", "GrammarCompiler"]

# Grammars that are kept for the next request that asks for the same; one takes some 100 kB.
_MAX_KEPT = 128
# How long an ending is looked for before a grammar is refused, and how many bytes it may have.
_SEARCH_S = 0.5
_MAX_ENDING_BYTES = 4096
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
    ends: bool  # whether an ending was found

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
        self._kept: OrderedDict[tuple[str, bool], Future[CompiledGrammar]] = OrderedDict()
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
        key = (params.key, always_closes)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        source = grammar_source(params, always_closes=always_closes)
        ends = self._find_ending(source)
        if not ends and params.form in _MUST_END:
            raise InvalidParameter(
                "structured_outputs: no answer that ends was found for this form: it asks for what "
                "contradicts itself, refers to itself without a way out, or needs more than "
                f"{_MAX_ENDING_BYTES} bytes",
                param="structured_outputs",
            )
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._pool.submit(self._compile, source, ends)
            if len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]

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

    def _find_ending(self, source: str) -> bool:
        """Return whether an answer that ends was found; raise if the grammar does not compile."""
        matcher = self._bytes.matcher(source)
        finder = EndingFinder(self._bytes.costs, self._bytes.words(source))
        deadline_s = time.monotonic() + _SEARCH_S
        path = finder.find(matcher, limit=_MAX_ENDING_BYTES, deadline_s=deadline_s)
        return path is not None

    def _compile(self, source: str, ends: bool) -> CompiledGrammar:
        target = self._model
        matcher = target.matcher(source)
        # llguidance adds a word where the vocabulary fills the last one.
        first_mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint32)
        first_mask = first_mask[: target.table.num_words]
        return CompiledGrammar(
            table=target.table,
            costs=target.costs,
            words=target.words(source),
            matcher=matcher,
            first_mask=first_mask,
            ends=ends,
        )


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
    if found.startswith("oneOf constraints are not supported"):
        return (
            "the JSON schema has a oneOf whose alternatives could hold at once, which cannot be "
            "enforced; tell them apart by a required property with a const, or use anyOf"
        )
    return found[:500]
