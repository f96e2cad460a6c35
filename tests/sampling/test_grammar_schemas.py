"""A JSON schema is enforced as what it says or something narrower, or is refused by name."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.sampling.random_schemas import random_one_of, random_schema
from toolkit import StructuredOutputsParams
from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar import GrammarCompiler, Vocabulary
from toolkit.sampling.grammar.compiler import CompiledGrammar

EOS = 256
VOCABULARY = Vocabulary(
    257, [EOS], [EOS], lambda token_id: bytes([token_id]) if token_id < EOS else b"<|end|>"
)
# How much likelier a byte is than others: what closes, and what can be read.
WEIGHTS = np.array([1.5 if 32 < byte < 127 else 0.2 for byte in range(256)] + [40.0])
WEIGHTS[[*b'"]}']] = 6.0
# Of a model that hardly ever closes anything.
OPEN_WEIGHTS = np.where(np.isin(np.arange(257), [*b'"]}', EOS]), 0.01, WEIGHTS)
KIND = {"type": "object", "required": ["kind"]}


@pytest.fixture(scope="module")
def compiler():
    compiler = GrammarCompiler(VOCABULARY)
    yield compiler
    compiler.close()


def grammar_of(compiler: GrammarCompiler, schema: Any, **options: Any) -> CompiledGrammar:
    params = StructuredOutputsParams(json=schema, **options)
    return compiler.compile(params, always_closes=True).result()


def answer(
    grammar: CompiledGrammar, seed: int, max_bytes: int = 300, weights: Any = WEIGHTS
) -> str:
    """Draw an answer byte by byte; close it when it gets long."""
    matcher, draw = grammar.new_matcher(), random.Random(seed)
    written = bytearray()
    while len(written) < max_bytes:
        packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        ids = np.flatnonzero(np.unpackbits(packed, count=257, bitorder="little"))
        byte = draw.choices(ids.tolist(), weights[ids].tolist())[0]
        if byte == EOS:
            break
        written.append(byte)
        assert matcher.consume_token(byte)
        if matcher.is_stopped():
            break
    if not matcher.is_accepting():
        rest = grammar.new_finder().find(matcher, limit=1000)
        assert rest is not None, bytes(written)
        written += bytes(rest)
    return written.decode()


def answers(compiler: GrammarCompiler, schema: Any, count: int = 60, **options: Any) -> list[Any]:
    grammar = grammar_of(compiler, schema, **options)
    return [json.loads(answer(grammar, seed)) for seed in range(count)]


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_answers_to_random_schemas_validate(compiler: GrammarCompiler, start: int):
    for seed in range(start, start + 50):
        schema = random_schema(seed)
        validator = jsonschema.Draft202012Validator(schema, format_checker=FORMATS)
        for value in answers(compiler, schema, count=3):
            validator.validate(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 7, "minimum": 3, "maximum": 100},
        {"type": "integer", "exclusiveMinimum": 3.5, "exclusiveMaximum": 5.5},
        {"type": "number", "minimum": -1e-7, "maximum": 1e-5},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": "^\\d\\w\\s[^a]\\\\\"$"},
        {"type": "string", "pattern": "^a+$", "minLength": 3, "maxLength": 5},
        {"type": ["string", "null"], "maxLength": 2},
        {"enum": [1, "a", None, {"x": [1.5, {"y": "é\"\\"}]}, True]},
        {"type": "string", "enum": [1, "a", "abc"], "minLength": 2},
        {"const": {"b": 1, "a": [None]}},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}]},
        {"type": "array", "prefixItems": [{"const": 1}], "items": {"type": "null"}, "minItems": 3},
        {"type": "object", "properties": {"a": {}}, "required": ["a", "unnamed"]},
        {"type": "object", "properties": {"a": {"type": "null"}}, "minProperties": 1},
        {"type": "object", "patternProperties": {"^k": {"type": "integer"}}, "minProperties": 1},
        {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
        {"properties": {"a": {"type": "boolean"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "anyOf": [
            {"required": ["a"]}, {"required": ["b"]}]},
        {"$ref": "#/$defs/a", "maxLength": 3, "$defs": {"a": {"type": "string"}}},
        {"$ref": "#name", "$defs": {"a": {"$anchor": "name", "type": "boolean"}}},
        {"definitions": {"a b/c": {"type": "null"}}, "$ref": "#/definitions/a%20b~1c"},
        {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}, {"multipleOf": 2}]},
        {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}, {"const": True}]},
        {"type": "array", "uniqueItems": False, "items": {"enum": ["a"]}, "maxItems": 2},
        {"type": "object", "properties": {"a": {}}, "unevaluatedProperties": False},
        {"type": "string", "pattern": "^(?:a|(b))[^\\]\\[-]\\u0041\\x41[\\d-]{1,2}?\\/x\\-$"},
        {"type": "string", "format": "color", "x-guidance": {"lenient": True}, "maxLength": 4},
        {}, True, {"type": "object"}, {"type": "array"}, {"title": "anything"},
    ],
)  # fmt: skip
def test_what_is_enforced_is_what_the_schema_says(compiler: GrammarCompiler, schema: Any):
    for value in answers(compiler, schema):
        jsonschema.validate(value, schema, jsonschema.Draft202012Validator)


def test_keywords_of_older_drafts_mean_what_they_meant(compiler: GrammarCompiler):
    draft4 = {"type": "integer", "minimum": 3, "exclusiveMinimum": True, "maximum": 5}
    assert set(answers(compiler, draft4)) == {4, 5}
    draft7 = {"type": "array", "items": [{"const": 1}, {"const": 2}], "minItems": 2}
    assert answers(compiler, draft7, count=5) == [[1, 2]] * 5
    draft7["additionalItems"] = {"const": 3}
    assert {tuple(value[2:]) for value in answers(compiler, draft7)} > {(), (3,)}


def test_a_oneof_told_apart_by_a_constant_property_is_enforced(compiler: GrammarCompiler):
    cat = {**KIND, "properties": {"kind": {"const": "cat"}, "lives": {"enum": [7, 9]}}}
    dog = {**KIND, "properties": {"kind": {"enum": ["dog", "wolf"]}, "barks": {"type": "boolean"}}}
    schema = {"oneOf": [{"$ref": "#/$defs/cat"}, dog], "$defs": {"cat": cat}}
    values = answers(compiler, schema)
    assert {value["kind"] for value in values} == {"cat", "dog", "wolf"}
    for value in values:
        jsonschema.validate(value, schema)


FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER
HOST_LABEL = re.compile("[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@pytest.mark.parametrize(
    "name", "date-time time date duration email hostname ipv4 ipv6 uuid uri".split()
)
def test_a_format_is_what_its_parsers_take(compiler: GrammarCompiler, name: str):
    schema = {"type": "string", "format": name}
    grammar = grammar_of(compiler, schema)
    texts = [json.loads(answer(grammar, seed, 2000, OPEN_WEIGHTS)) for seed in range(100)]
    assert [text for text in texts if not FORMATS.conforms(text, name)] == []
    if name == "hostname":
        assert max(map(len, texts)) <= 253
        assert all(HOST_LABEL.fullmatch(each) for text in texts for each in text.split("."))
    if name in ("date-time", "time"):
        assert not any(":60" in text[:21] for text in texts)


def test_a_format_holds_beside_a_pattern(compiler: GrammarCompiler):
    schema = {"type": "string", "format": "hostname", "pattern": "^a.*[0-9]$", "maxLength": 300}
    for text in answers(compiler, schema):
        assert re.fullmatch("a.*[0-9]", text)
        assert all(HOST_LABEL.fullmatch(each) for each in text.split("."))


@pytest.mark.parametrize(
    "bounds",
    [
        {"exclusiveMinimum": 1, "exclusiveMaximum": 1.0000001},
        {"exclusiveMinimum": 0, "exclusiveMaximum": 1e-7},
        {"exclusiveMinimum": -1e-5, "maximum": 0},
        {"minimum": 1, "exclusiveMinimum": True, "maximum": 1.001},
        {"exclusiveMinimum": 1e15, "exclusiveMaximum": 1e15 + 10_000},
        {"multipleOf": 0.5}, {"multipleOf": 2.5}, {"multipleOf": 0.125}, {"multipleOf": 7.0},
        {"multipleOf": 0.25, "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"allOf": [{"multipleOf": 1.5}, {"type": "number"}]},
    ],
)  # fmt: skip
def test_a_number_keeps_to_its_bounds_as_a_float(compiler: GrammarCompiler, bounds: Any):
    is_draft4 = bounds.get("exclusiveMinimum") is True
    kind = jsonschema.Draft4Validator if is_draft4 else jsonschema.Draft202012Validator
    for schema in ({"type": "number", **bounds}, {"type": ["number", "null"], **bounds}):
        for value in answers(compiler, schema, count=200):
            kind(schema).validate(value)


A, AB = {"a": {"type": "integer"}}, {"a": {"type": "integer"}, "b": {"type": "integer"}}
LONG = {"type": "string", "minLength": 1200}


@pytest.mark.parametrize(
    "alternatives",
    [
        [{"type": "object", "properties": A, "required": ["a"]},
         {"type": "object", "properties": AB, "required": ["a", "b"]}],
        [{"type": "object", "properties": A},
         {"type": "object", "properties": AB, "required": ["b"]}],
        [{"type": "array", "items": {"oneOf": [{"properties": A}, {"properties": AB}]}}],
        [{"type": "string"}, LONG],  # a free string is bounded, but not by its schema
        [{"type": "number"}, {"type": "number", "minimum": 1e19}],
        [{"$anchor": "x", "type": "object"}, {"$ref": "#x"}],
    ],
)  # fmt: skip
def test_alternatives_that_only_seem_to_exclude_each_other_are_refused(
    compiler: GrammarCompiler, alternatives: list[Any]
):
    """Each is narrowed before it is enforced: that says nothing about the others."""
    with pytest.raises(InvalidParameter, match="could hold at once cannot be enforced"):
        grammar_of(compiler, {"oneOf": alternatives})


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "object", "properties": A, "additionalProperties": False},
                   {"type": "object", "properties": AB, "required": ["b"]}]},
        {"type": "object", "required": ["k"], "oneOf": [
            {"properties": {"k": {"const": 1}}}, {"properties": {"k": {"enum": [2, "x"]}}}]},
        {"oneOf": [{"type": "object"}]},
        {"oneOf": [{"const": 1}, {"const": True}, {"enum": ["1", None]}, {"type": "array"}]},
    ],
)  # fmt: skip
def test_alternatives_that_exclude_each_other_are_enforced(compiler: GrammarCompiler, schema: Any):
    for value in answers(compiler, schema):
        jsonschema.validate(value, schema)


def test_a_random_oneof_is_enforced_or_refused(compiler: GrammarCompiler):
    num_refused = 0
    for seed in range(200):
        schema = random_one_of(seed)
        try:
            values = answers(compiler, schema, count=4)
        except InvalidParameter:
            num_refused += 1
            continue
        for value in values:
            jsonschema.Draft202012Validator(schema).validate(value)
    assert 20 < num_refused < 180


def test_names_of_definitions_are_the_schemas_own(compiler: GrammarCompiler):
    schema = {
        "$defs": {"any-value": {"const": 3}, "any value": {"const": 4}},
        "type": "array",
        "prefixItems": [{"$ref": "#/$defs/any-value"}, {"$ref": "#/$defs/any%20value"}, {}],
        "minItems": 3,
    }
    values = answers(compiler, schema)
    assert {tuple(value[:2]) for value in values} == {(3, 4)}
    assert len({json.dumps(value[2]) for value in values}) > 3


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"not": {"type": "string"}}, 'cannot be enforced here: "not"'),
        ({"properties": {"a": {"if": {}, "then": {"maximum": 5}}}}, '"if", "then"'),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
        ({"type": "array", "contains": {"type": "null"}}, '"contains"'),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, '"propertyNames"'),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, '"dependentRequired"'),
        ({"$ref": "#/$defs/a", "unevaluatedProperties": False, "$defs": {"a": {}}}, "unevaluated"),
        ({"$dynamicRef": "#a"}, '"$dynamicRef"'),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "could hold at once"),
        ({"oneOf": [KIND, {"type": "object", "required": ["b"]}]}, "could hold at once"),
        ({"type": "object", "minProperties": 2}, "minProperties, where properties have free names"),
        ({"const": 12345678901234567890}, "a number beyond 2^53 in const cannot be"),
        ({"items": {"enum": [1, [1e30]]}}, "in enum cannot be enforced (at #/items of"),
        ({"type": "integer", "minimum": 2**53 + 1}, "minimum, a number which no float holds"),
        ({"type": "number", "multipleOf": 0.01}, "multipleOf 0.01, of which floats hold no"),
        ({"type": "number", "maximum": 1e15 + 0.5}, "a number beyond 2^40 with a fraction"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "^[[:alpha:]]$"}, "has '['"),
        ({"type": "string", "pattern": "^[a-z&&[^aeiou]]$"}, "has '&&'"),
        ({"type": "string", "pattern": "[a-z--b]"}, "has '--'"),
        ({"type": "string", "pattern": "[]a]"}, "has '[]'"),
        ({"type": "string", "pattern": "(?x) a"}, "has '(?x'"),
        ({"type": "string", "pattern": "(?-u:a)"}, "has '(?-'"),
        ({"type": "string", "pattern": "(?P<name>a)"}, "has '(?P'"),
        ({"type": "string", "pattern": "a\\z"}, "has '\\\\z'"),
        ({"type": "string", "pattern": "\\pL"}, "has '\\\\p'"),
        ({"type": "string", "pattern": "\\x{41}"}, "has '\\\\x'"),
        ({"type": "string", "pattern": "\\b{start}a"}, "has '\\\\b{'"),
        ({"type": "string", "pattern": "a++"}, "has '++'"),
        ({"type": "object", "patternProperties": {"\\Aa": {}}}, "has '\\\\A'"),
        ({"type": "string", "pattern": "(a)\\1"}, "backreferences are not supported"),
        ({"$ref": "https://example.com/schema"}, "retriev"),
        ({"$ref": "#/$defs/missing"}, "does not exist"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(
    compiler: GrammarCompiler, schema: Any, says: str
):
    with pytest.raises(InvalidParameter) as caught:
        grammar_of(compiler, schema)
    assert says in str(caught.value)
    assert caught.value.param == "structured_outputs"
    assert len(str(caught.value)) < 600


SELF = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (False, "no value fits the JSON schema false"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum (5) is greater"),
        ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength (5) is greater"),
        ({"enum": []}, "Unsatisfiable"),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "Unsatisfiable"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "'a'"),
        (SELF, "refers to itself without a way out"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "no answer that ends"),
        ({"type": "array", "items": {"const": "x"}, "minItems": 100_000}, "more than 4096 bytes"),
    ],
)
def test_a_schema_that_no_answer_fits_is_refused_with_the_reason(
    compiler: GrammarCompiler, schema: Any, says: str
):
    with pytest.raises(InvalidParameter) as caught:
        grammar_of(compiler, schema)
    assert says in str(caught.value)


def test_a_schema_that_refers_to_itself_with_a_way_out_ends(compiler: GrammarCompiler):
    schema = {**SELF, "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    depths = {json.dumps(value).count("next") for value in answers(compiler, schema)}
    assert len(depths) > 2
    assert 1 in depths


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": 3}, "type must be text or a list of texts, not 3 (at # of"),
        ({"properties": []}, "properties must be an object of schemas"),
        ({"items": {"required": "a"}}, "required must be a list of texts, not 'a' (at #/items of"),
        ({"anyOf": {"a": 1}}, "anyOf must be a list of schemas"),
        ({"minLength": -1}, "minLength must be a whole number"),
        ({"minItems": 10**9}, "minItems must be a whole number from 0 to 1000000"),
        ({"minimum": "3"}, "minimum must be a number"),
        ({"enum": "abc"}, "enum must be a list"),
        ({"additionalProperties": 1}, "additionalProperties must be a schema"),
        ({"type": "foo"}, "Invalid type: foo"),
    ],
)
def test_a_keyword_of_a_wrong_shape_is_refused_with_its_place(
    compiler: GrammarCompiler, schema: Any, says: str
):
    with pytest.raises(InvalidParameter) as caught:
        grammar_of(compiler, schema)
    assert says in str(caught.value)


def test_a_schema_too_deep_or_too_large_is_refused(compiler: GrammarCompiler):
    deep: dict[str, Any] = {}
    for _ in range(120):
        deep = {"type": "array", "items": deep}
    with pytest.raises(InvalidParameter, match="nested more than 100 deep"):
        grammar_of(compiler, deep)
    wide = {"properties": {f"p{index}": {} for index in range(5001)}}
    with pytest.raises(InvalidParameter, match="more than 5000 properties"):
        grammar_of(compiler, wide)


def test_properties_that_are_not_named_come_only_where_they_are_asked_for(
    compiler: GrammarCompiler,
):
    named = {"type": "object", "properties": {"a": {"const": 1}}}
    assert all(value in ({}, {"a": 1}) for value in answers(compiler, named))
    more = {**named, "additionalProperties": {"const": 2}}
    assert any(value.keys() - {"a"} for value in answers(compiler, more))
    closed = answers(compiler, more, disable_additional_properties=True)
    assert all(value in ({}, {"a": 1}) for value in closed)


def test_whitespace_is_one_space_or_an_indented_line_unless_told_otherwise(
    compiler: GrammarCompiler,
):
    schema = {"type": "array", "items": {"const": 0}, "minItems": 3, "maxItems": 3}

    def spaces(**options: Any) -> set[str]:
        grammar = grammar_of(compiler, schema, **options)
        texts = [answer(grammar, seed) for seed in range(60)]
        return {space for text in texts for space in text.strip("[]").replace("0", ",").split(",")}

    assert {"", " "} < spaces()
    assert all(len(space.strip(" \t")) <= 1 for space in spaces())
    assert spaces(disable_any_whitespace=True) == {""}
    assert spaces(whitespace_pattern="_{0,2}") == {"", "_", "__"}
