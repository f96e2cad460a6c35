"""Grammars over the vocabularies of every tokenizer format: what is written is what was allowed."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from tests.text.tokenizer_kinds import CUT_CHARACTERS, tokenizer_of
from toolkit import StructuredOutputsParams
from toolkit.sampling.grammar import GrammarCompiler, Vocabulary
from toolkit.text import Tokenizer

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b c": {"enum": ["é", "the cat"]}},
    "required": ["a", "b c"],
}


def compiler_for(tokenizer: Tokenizer) -> GrammarCompiler:
    size = len(tokenizer) + 7  # as where a model's vocabulary is padded
    token_bytes = tokenizer.token_bytes
    eos = tokenizer.eos_token_ids
    return GrammarCompiler(Vocabulary(size, eos, token_bytes.special_ids, token_bytes))


# Of the last one, a token's bytes within a text are not known: a lone space reads as nothing.
@pytest.mark.parametrize("kind", [kind for kind in CUT_CHARACTERS if kind != "slow sentencepiece"])
def test_an_answer_is_read_as_what_the_grammar_took_it_for(kind: str):
    tokenizer = tokenizer_of(kind)
    compiler = compiler_for(tokenizer)
    params = StructuredOutputsParams(json=SCHEMA)
    grammar = compiler.compile(params, always_closes=True).result()
    for seed in range(20):
        matcher, draw, token_ids = grammar.new_matcher(), random.Random(seed), []
        while not matcher.is_stopped() and len(token_ids) < 60:
            packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            ids = np.flatnonzero(np.unpackbits(packed, bitorder="little"))
            token_ids.append(int(draw.choice(ids.tolist())))
            assert token_ids[-1] < len(tokenizer)
            assert matcher.consume_token(token_ids[-1])
        rest = grammar.new_finder().find(matcher, limit=200)
        assert rest is not None
        value = json.loads(tokenizer.decode([*token_ids, *rest]))
        assert isinstance(value["a"], int)
        assert value["b c"] in ("é", "the cat")
    compiler.close()


def test_a_vocabulary_that_cannot_write_a_form_leaves_no_token():
    words = {0: b"yes", 1: b"no", 2: b"<|end|>"}
    compiler = GrammarCompiler(Vocabulary(3, [2], [2], words.__getitem__))
    grammar = compiler.compile(StructuredOutputsParams(choice=["maybe"]), always_closes=True)
    matcher = grammar.result().new_matcher()
    assert grammar.result().new_finder().find(matcher, limit=10) is None
    compiler.close()
