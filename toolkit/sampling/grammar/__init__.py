"""Structured output: a grammar says which tokens may come next, and when an answer is complete."""

from toolkit.sampling.grammar.compiler import GrammarCompiler
from toolkit.sampling.grammar.rows import GrammarRows
from toolkit.sampling.grammar.vocabulary import Vocabulary

__all__ = ["GrammarCompiler", "GrammarRows", "Vocabulary"]
