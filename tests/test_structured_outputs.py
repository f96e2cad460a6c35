"""The words of structured output: what is given, what it becomes, and what is refused."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from toolkit import SamplingParams, StructuredOutputsParams
from toolkit.errors import InvalidParameter, InvalidRequest
from toolkit.structured_outputs import response_format_params

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}


class Point(pydantic.BaseModel):
    """A model class, as users of the openai package have them."""

    x: int


@pytest.mark.parametrize(
    "given",
    [
        {"json": SCHEMA},
        {"json": True},
        {"json": False},
        {"regex": "[a-z]+"},
        {"choice": ["a", "b"]},
        {"grammar": 'start: "a"'},
        {"json_object": True},
        {"structural_tag": '{"structures": [], "triggers": []}'},
        {"json": SCHEMA, "regex": None, "disable_any_whitespace": True},
    ],
)
def test_one_form_is_accepted_as_parameters_and_as_a_mapping(given: dict[str, Any]):
    params = StructuredOutputsParams(**given)
    assert SamplingParams(structured_outputs=given).structured_outputs == params
    assert SamplingParams(structured_outputs=params).structured_outputs is params
    assert params.form == next(iter(given))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "exactly one of"),
        ({"json_object": False}, "exactly one of"),
        ({"json": SCHEMA, "regex": "a"}, "not json and regex"),
        ({"json": "{"}, "json is not JSON"),
        ({"json": "[1]"}, "must be a JSON schema"),
        ({"json": {"const": float("nan")}}, "NaN is no JSON number"),
        ({"json": {"const": {1, 2}}}, "no JSON value"),
        ({"json": {"const": "\ud800"}}, "not JSON"),
        ({"regex": 3}, "regex must be text"),
        ({"regex": "\ud800"}, "not valid Unicode"),
        ({"choice": []}, "at least one text"),
        ({"choice": "yes"}, "must be a list"),
        ({"choice": ["a", 1]}, "must be a list"),
        ({"grammar": " "}, "grammar is empty"),
        ({"json_object": 1}, "json_object must be True"),
        ({"structural_tag": "[]"}, "must be an object"),
        ({"regex": "a", "disable_any_whitespace": 1}, "disable_any_whitespace must be"),
        ({"regex": "a" * 300_000}, "more than 250000"),
        ({"regexp": "a"}, "no field is called 'regexp'"),
        ("a", "a mapping of its fields"),
    ],
)
def test_what_is_no_form_is_refused_by_name(given: Any, says: str):
    with pytest.raises(InvalidParameter, match=says) as caught:
        SamplingParams(structured_outputs=given)
    assert caught.value.param == "structured_outputs"


def test_a_schema_is_read_from_text_and_from_a_model_class_and_kept_apart_from_the_users():
    schema = {"type": "object", "required": ["x"]}
    params = StructuredOutputsParams(json=schema)
    schema["required"].append("y")  # type: ignore[attr-defined]
    assert params.json == {"type": "object", "required": ["x"]}
    assert StructuredOutputsParams(json=Point).json == Point.model_json_schema()
    assert StructuredOutputsParams(json='{"type": "null"}').json == {"type": "null"}


def test_the_key_tells_forms_apart_by_all_their_fields_and_by_the_order_of_properties():
    forms = [
        StructuredOutputsParams(json=SCHEMA),
        StructuredOutputsParams(json={**SCHEMA, "properties": {"a": {}, "b": {}}}),
        StructuredOutputsParams(json={**SCHEMA, "properties": {"b": {}, "a": {}}}),
        StructuredOutputsParams(json=SCHEMA, disable_any_whitespace=True),
        StructuredOutputsParams(json_object=True),
    ]
    assert len({form.key for form in forms}) == len(forms)
    assert StructuredOutputsParams(json=dict(SCHEMA)).key == forms[0].key


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ({"type": "json_object"}, "json_object"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "a", "strict": True}}, "json_object"),
        ({"type": "structural_tag", "structures": [], "triggers": []}, "structural_tag"),
    ],
)
def test_openais_response_formats_become_forms(given: dict[str, Any], form: str):
    params = response_format_params(given)
    assert params is not None
    assert params.form == form


def test_the_response_format_text_is_no_form():
    assert response_format_params({"type": "text"}) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "must be an object"),
        ({}, "its type must be"),
        ({"type": "json"}, "its type must be"),
        ({"type": "json_schema"}, "a field json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a b"}}, "json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a", "strict": 1}}, "strict must be"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": "{}"}}, "an object"),
    ],
)
def test_a_malformed_response_format_is_refused(given: Any, says: str):
    with pytest.raises(InvalidRequest, match=says) as caught:
        response_format_params(given)
    assert caught.value.param == "response_format"
