"""What a form may cost, whoever wrote it: bounded work for each token, request and engine."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest

from tests.sampling.test_grammar_forms import accepts, grammar_of
from tests.sampling.test_grammar_schemas import EOS, VOCABULARY, WEIGHTS
from toolkit import StructuredOutputsParams
from toolkit.errors import InvalidParameter
from toolkit.request import Request, SamplingParams
from toolkit.sampling.grammar import GrammarCompiler
from toolkit.sampling.grammar.closing import DEFAULT_BUDGET
from toolkit.sampling.grammar.compiler import CompiledGrammar
from toolkit.sampling.grammar.ending import words_of
from toolkit.sampling.grammar.source import grammar_source
from toolkit.sampling.grammar.state import GrammarState

DECOYS = " | ".join(f'"w{place:02}x"' for place in range(60))
DECOY_GRAMMAR = f'start: (CH | DEC)* END\nCH: /[^#]/\nDEC: {DECOYS}\nEND: "#zz"\n'
TWELVE = [f"property {place}" for place in range(12)]
OBJECT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in TWELVE},
    "required": TWELVE,
}


@pytest.fixture(scope="module")
def compiler():
    compiler = GrammarCompiler(VOCABULARY)
    yield compiler
    compiler.close()


class CountingMatcher:
    """A matcher of llguidance that counts the calls which search: masks, trials, forced tokens."""

    def __init__(self, matcher: Any, calls: list[str]) -> None:
        self._matcher, self._calls = matcher, calls

    def __getattr__(self, name: str) -> Any:
        if name in ("compute_bitmask", "validate_tokens", "compute_ff_tokens"):
            self._calls.append(name)
        return getattr(self._matcher, name)

    def deep_copy(self) -> CountingMatcher:
        return CountingMatcher(self._matcher.deep_copy(), self._calls)


def answer(
    grammar: CompiledGrammar, room: int, seed: int, weights: Any = WEIGHTS
) -> tuple[bytes, bool, list[int]]:
    """Draw an answer; return it, whether it is complete, and the calls that each token took."""
    request = Request("a", (1,), SamplingParams(max_tokens=None), 0, 0.0, seed, max_tokens=room)
    state = GrammarState(grammar, request)
    calls: list[str] = []
    inner, draw = state.matcher, random.Random(seed)
    state.matcher = CountingMatcher(inner, calls)
    written, per_token = bytearray(), []
    for _ in range(room):
        bits = np.unpackbits(state.mask.view(np.uint8), count=257, bitorder="little")
        ids = np.flatnonzero(bits)
        token_id = draw.choices(ids.tolist(), weights[ids].tolist())[0]
        accepted = state.accept(token_id)
        written += bytes([accepted.token_id] if accepted.token_id != EOS else [])
        if not accepted.is_last:
            packed = np.frombuffer(inner.compute_bitmask(), dtype=np.uint32)
            state.take_mask(packed[: grammar.table.num_words].copy())
        per_token.append(len(calls))
        calls.clear()
        if accepted.is_last:
            break
    return bytes(written), inner.is_accepting(), per_token


NEVER_CLOSES = np.array([1.0 if 32 < byte < 127 else 0.01 for byte in range(256)] + [1e-9])
NEVER_CLOSES[[*b'"]}#']] = 0.05


@pytest.mark.parametrize(
    "form",
    [
        {"grammar": DECOY_GRAMMAR},
        {"grammar": 'start: /[^#]*/ "#zz"'},
        {"regex": ".*the end"},
        {"json": {"type": "array", "items": OBJECT, "minItems": 3}},
        {"json": {"type": "string", "pattern": "^x.*y$"}},
        {"json": {}},
    ],
)
@pytest.mark.parametrize("room", [600, 1500])
def test_an_answer_closes_before_the_context_ends_for_a_few_calls_a_token(
    compiler: GrammarCompiler, form: dict[str, Any], room: int
):
    grammar = grammar_of(compiler, **form)
    for seed in range(4):
        text, is_complete, calls = answer(grammar, room, seed, NEVER_CLOSES)
        assert is_complete, text
        assert max(calls) <= 64  # between two steps of everybody's
        assert sum(calls) <= 64 + 4 * len(calls)


def test_looks_at_the_end_are_rare_while_there_is_room(compiler: GrammarCompiler):
    schema = {"type": "array", "items": OBJECT, "minItems": 3}
    _, _, calls = answer(grammar_of(compiler, json=schema), 2 * DEFAULT_BUDGET, 0, NEVER_CLOSES)
    assert sum(1 for count in calls[:1000] if count) < 30


def test_an_answer_whose_end_cannot_be_seen_goes_on_to_the_end_of_the_context(
    compiler: GrammarCompiler,
):
    """Which word ends it depends on how it began, and no ending says so but the searched one."""
    pairs = " | ".join(f'"<{name}" /[^!]*/ "!{name}>"' for name in map(str, range(1000, 1100)))
    grammar = grammar_of(compiler, grammar=f"start: {pairs}")
    for seed in range(3):
        _, _, calls = answer(grammar, 300, seed, NEVER_CLOSES)
        assert max(calls) <= 64
        assert sum(calls) <= 64 + 4 * len(calls)


# ---- reading a form


def seconds_of_cpu(call: Any) -> float:
    start_s = time.thread_time()
    call()
    return time.thread_time() - start_s


QUOTES = 'start: "a"\n// "' + '\\"' * 50_000 + "\n"


@pytest.mark.parametrize(
    "grammar",
    ["\n" * 120_000 + "x", QUOTES, "a" * 240_000, "a\n" * 80_000, "%json" + " " * 240_000,
     "start: /" + "\\/" * 80_000, '"' * 120_000, "a ::" * 60_000],
)  # fmt: skip
def test_a_grammar_is_read_in_time_that_grows_with_its_length_only(grammar: str):
    def read() -> None:
        params = StructuredOutputsParams(grammar=grammar)
        words_of(grammar_source(params, always_closes=True))

    assert seconds_of_cpu(read) < 2  # the quadratic reading of these took minutes


def test_what_reads_as_ebnf_has_a_rule_at_the_beginning_of_a_line(compiler: GrammarCompiler):
    with pytest.raises(InvalidParameter, match="EBNF"):
        grammar_of(compiler, grammar='  rule-a ::= "a" "')
    assert grammar_of(compiler, grammar='start: "a ::= b"  // c ::= d').ending == [*b"a ::= b"]


MANY = [{"const": place} for place in range(4000)]
WIDE = {
    "type": "object",
    "properties": {"l": {"$ref": "#/$defs/t"}, "r": {"$ref": "#/$defs/t"}},
    "required": ["l", "r"],
}


def test_many_alternatives_with_values_of_their_own_are_enforced(compiler: GrammarCompiler):
    params = StructuredOutputsParams(json={"oneOf": [*MANY, {"type": "string", "maxLength": 3}]})
    assert seconds_of_cpu(lambda: grammar_source(params, always_closes=True)) < 1
    twice = StructuredOutputsParams(json={"oneOf": [*MANY, {"const": 1.0}]})
    with pytest.raises(InvalidParameter, match="could hold at once"):
        grammar_source(twice, always_closes=True)


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "object", "properties": {"a": each}, "required": ["a"]}
                   for each in MANY[:3000]]},
        {"oneOf": [WIDE, WIDE], "$defs": {"t": WIDE}},
        {"oneOf": [{"enum": [*range(7000)]}, {"type": "integer"}]},
        {"oneOf": [{"$ref": "#/" + "a/" * 2_000}] * 50},
    ],
)  # fmt: skip
def test_alternatives_that_take_long_to_compare_are_refused(schema: dict[str, Any]):
    def refused() -> None:
        params = StructuredOutputsParams(json=schema)
        with pytest.raises(InvalidParameter, match="could hold at once"):
            grammar_source(params, always_closes=True)

    assert seconds_of_cpu(refused) < 3


# ---- what is found and kept


@pytest.mark.parametrize("count", [2, 2500, 20_000])
def test_a_choice_of_many_texts_is_taken(compiler: GrammarCompiler, count: int):
    grammar = grammar_of(compiler, choice=[f"{place}xxx" for place in range(count)])
    assert grammar.ending == [*b"0xxx"]
    assert accepts(grammar, f"{count - 1}xxx")
    assert not accepts(grammar, f"{count}xxx")
    assert not accepts(grammar, "")


def test_a_choice_may_be_no_text_at_all(compiler: GrammarCompiler):
    grammar = grammar_of(compiler, choice=["", "a", "ab"])
    assert grammar.ending == []
    assert [text for text in ("", "a", "ab", "b") if not accepts(grammar, text)] == ["b"]


def test_a_form_that_was_refused_is_refused_again_without_another_search(
    compiler: GrammarCompiler,
):
    params = StructuredOutputsParams(grammar='start: "a" again\nagain: "b" start')

    def refused() -> None:
        with pytest.raises(InvalidParameter, match="no answer that ends was found"):
            compiler.compile(params, always_closes=True)

    first_s = seconds_of_cpu(refused)
    assert seconds_of_cpu(refused) < first_s / 5


def test_kept_grammars_are_bounded_by_their_length_too():
    compiler = GrammarCompiler(VOCABULARY)
    forms = [
        StructuredOutputsParams(json={"enum": [f"{which} {place:06}" for place in range(15_000)]})
        for which in range(14)
    ]
    kept = [compiler.compile(form, always_closes=True) for form in forms]
    assert compiler.compile(forms[-1], always_closes=True) is kept[-1]
    assert compiler.compile(forms[0], always_closes=True) is not kept[0]
    compiler.close()
