"""Forms other than JSON schemas as grammars, and the endings that are found for them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from tests.sampling.test_grammar_schemas import EOS, VOCABULARY, answer
from toolkit import StructuredOutputsParams
from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar import GrammarCompiler, Vocabulary
from toolkit.sampling.grammar.compiler import CompiledGrammar

TAGS: dict[str, Any] = {
    "structures": [
        {"begin": "<f=a>", "schema": {"const": 1}, "end": "</f>"},
        {"begin": "<f=b>", "schema": {"const": [2]}, "end": "</f>"},
    ],
    "triggers": ["<f="],
}


@pytest.fixture(scope="module")
def compiler():
    compiler = GrammarCompiler(VOCABULARY)
    yield compiler
    compiler.close()


def grammar_of(compiler: GrammarCompiler, **form: Any) -> CompiledGrammar:
    params = StructuredOutputsParams(**form)
    return compiler.compile(params, always_closes=True).result()


def accepts(grammar: CompiledGrammar, text: str) -> bool:
    matcher = grammar.new_matcher()
    return bool(matcher.try_consume_tokens(list(text.encode())) == len(text.encode())) and bool(
        matcher.is_accepting()
    )


@pytest.mark.parametrize(
    ("form", "fitting", "others"),
    [
        ({"regex": "[a-c]{2}/\\d+"}, ["ab/1", "cc/12"], ["a/1", "ab1", "xab/1", "ab/"]),
        ({"regex": "^ab?$"}, ["a", "ab"], ["", "abb"]),
        ({"regex": "a\nb|/\\/"}, ["a\nb", "//"], ["anb"]),
        ({"choice": ["yes", 'a "q"\n\\', "é"]}, ["yes", 'a "q"\n\\', "é"], ["", "ye", "yesé"]),
        ({"grammar": 'start: "a" [b]\nb: "b" b?'}, ["a", "abbb"], ["", "b", "aba"]),
        ({"grammar": 'root ::= item ("," item)*\nitem ::= [0-9]+'}, ["1", "1,22"], [",", "1,"]),
        ({"grammar": 'start: "<t>" %json {"const": {"a/b": "}"}}'}, ['<t>{"a/b":"}"}'], ["<t>{}"]),
        ({"grammar": 'start: "%json {" // %json {\n'}, ["%json {"], ["%json"]),
        ({"json_object": True}, ["{}", '{"a": [1, {"b": null}]}'], ["[]", "1", ""]),
        ({"structural_tag": TAGS}, ["", "hm", "x<f=a>1</f>y<f=b>[2]</f>"], ["<f=", "<f=a>2</f>"]),
        (
            {"structural_tag": {"format": {**TAGS, "type": "triggered_tags", "at_least_one": True,
                                           "tags": TAGS["structures"]}}},
            ["so <f=a>1</f>", "<f=a>1</f><f=b>[2]</f>"], ["", "so"],
        ),
        (
            {"structural_tag": {"format": {"type": "sequence", "elements": [
                {"type": "const_string", "value": "x"},
                {"type": "or", "elements": [{"type": "regex", "pattern": "[0-9]/"},
                                            {"type": "json_schema", "json_schema": {"const": 7}}]},
                {"type": "tag", "begin": "<a>", "content": {"type": "any_text"}, "end": "</a>"}]}}},
            ["x1/<a></a>", "x7<a>b\n</a>"], ["x<a></a>", "x1/<a>", "x1/<a></a>b"],
        ),
        (
            {"structural_tag": {"format": {"type": "tags_with_separator", "separator": ";",
             "tags": [{"begin": "(", "content": {"type": "regex", "pattern": "a*"}, "end": ")"}]}}},
            ["", "(a)", "(a);()"], ["(a)()", "(b)"],
        ),
    ],
)  # fmt: skip
def test_a_form_is_what_it_says(
    compiler: GrammarCompiler, form: dict[str, Any], fitting: list[str], others: list[str]
):
    grammar = grammar_of(compiler, **form)
    assert [text for text in fitting if not accepts(grammar, text)] == []
    assert [text for text in others if accepts(grammar, text)] == []


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"regex": "(?=a)"}, "look-around"),
        ({"regex": "(((a"}, "regex parse error"),
        ({"grammar": "start: missing"}, 'unknown name: "missing"'),
        ({"grammar": "start: <|nothing|>"}, "unknown special token"),
        ({"grammar": 'start: "a" start'}, "refers to itself without a way out"),
        ({"grammar": 'rule ::= "a"'}, "EBNF grammar cannot be read"),
        ({"grammar": "start: %json {"}, "%json whose schema is not JSON"),
        ({"grammar": 'start: %json {"not": {}}'}, '"not"'),
        ({"grammar": f"start: {'(' * 10_000}"}, "nested"),
        ({"structural_tag": {}}, "structures must be a list of objects"),
        ({"structural_tag": {**TAGS, "triggers": ["<f=", "<g"]}}, "no tag begins with the trigger"),
        ({"structural_tag": {**TAGS, "triggers": ["<f=a"]}}, "no trigger begins the tag"),
        (
            {"structural_tag": {**TAGS, "triggers": [f"<f={n}" for n in range(101)]}},
            "101 triggers, more than 100",
        ),
        ({"structural_tag": {"format": {"type": "sequences"}}}, "of type 'sequences' is not known"),
        ({"structural_tag": {"format": 3}}, "a format must be an object"),
    ],
)
def test_a_malformed_form_is_refused_with_the_reason(
    compiler: GrammarCompiler, form: dict[str, Any], says: str
):
    with pytest.raises(InvalidParameter) as caught:
        grammar_of(compiler, **form)
    assert says in str(caught.value)
    assert caught.value.param == "structured_outputs"


@pytest.mark.parametrize(
    "form",
    [
        {"regex": ".*Final answer: [0-9]+"},
        {"regex": "(.|\n)*</done>"},
        {"json": {"type": "string", "pattern": "^x.*y$"}},
        {"json": {"type": "array", "items": {"type": "number"}, "minItems": 60}},
        {"json": {"type": "string", "minLength": 700}},
        {"structural_tag": {"format": {"type": "tag", "begin": "<a>", "end": "</a>",
                                       "content": {"type": "any_text"}}}},
        {"grammar": 'start: expr\nexpr: "(" expr ")" | /[0-9]+/ "+" expr | /[0-9]+/'},
    ],
)  # fmt: skip
def test_an_ending_is_found_from_wherever_an_answer_has_come(
    compiler: GrammarCompiler, form: dict[str, Any]
):
    grammar = grammar_of(compiler, **form)
    for seed in range(10):
        for max_bytes in (0, 7, 60):
            answer(grammar, seed, max_bytes)  # which asserts that there is an ending


def test_a_special_token_is_named_and_other_added_tokens_are_text():
    names = {EOS: b"<|end|>", 257: b"<tool>", 258: b"<text>"}
    vocabulary = Vocabulary(
        300, [EOS], [EOS, 257], lambda token_id: names.get(token_id) or bytes([token_id % 256])
    )
    compiler = GrammarCompiler(vocabulary)
    grammar = grammar_of(compiler, grammar='start: <tool> "<text>" <[257]>')
    matcher = grammar.new_matcher()
    assert matcher.consume_tokens([257, 258, 257])
    assert matcher.is_stopped()
    compiler.close()


def test_equal_forms_are_compiled_once_and_the_oldest_are_dropped(compiler: GrammarCompiler):
    params = StructuredOutputsParams(regex="once")
    first = compiler.compile(params, always_closes=True)
    assert compiler.compile(StructuredOutputsParams(regex="once"), always_closes=True) is first
    assert compiler.compile(params, always_closes=False) is not first
    for index in range(140):
        compiler.compile(StructuredOutputsParams(regex=f"other{index}"), always_closes=True)
    assert compiler.compile(params, always_closes=True) is not first


def test_a_wrong_form_is_refused_before_the_vocabulary_is_read():
    may_read = threading.Event()

    def bytes_of(token_id: int) -> bytes:
        if token_id == EOS:
            return b"<|end|>"
        assert may_read.wait(30)
        return bytes([token_id])

    compiler = GrammarCompiler(Vocabulary(257, [EOS], [EOS], bytes_of))
    with pytest.raises(InvalidParameter, match="look-around"):
        compiler.compile(StructuredOutputsParams(regex="(?=a)"), always_closes=True)
    future: Future[CompiledGrammar] = compiler.compile(
        StructuredOutputsParams(choice=["a"]), always_closes=True
    )
    assert not future.done()
    may_read.set()
    assert accepts(future.result(), "a")
    compiler.close()
