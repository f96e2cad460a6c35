"""StructuredOutputsParams: the form that an answer must have (vLLM's name and fields).

Torch-free words: what each form means to the sampler is ``toolkit.sampling.grammar``'s business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from toolkit.errors import InvalidParameter, InvalidRequest

__all__ = ["StructuredOutputsParams", "response_format_params", "structured_outputs_params"]

_FORMS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_FLAGS = ("disable_any_whitespace", "disable_additional_properties")
# Of all that describes the form together: beyond it the description is no longer one of a form,
# and reading it would take its time from other requests.
MAX_DESCRIPTION_CHARACTERS = 250_000
# OpenAI's rule for the name of a schema.
_SCHEMA_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputsParams:
    """The form of an answer; exactly one of the first six fields says which.

    >>> StructuredOutputsParams(json='{"type": "integer"}').json
    {'type': 'integer'}
    >>> StructuredOutputsParams(choice=["yes", "no"]).choice
    ('yes', 'no')

    Args:
        json: A JSON schema as a mapping, a truth value, text, or a pydantic model class.
        regex: A regular expression that the whole answer matches (Rust's syntax: no look-around
            and no back-references).
        choice: The texts of which the answer is one.
        grammar: A context-free grammar: Lark in llguidance's dialect, with ``start:`` as its first
            rule, or EBNF as in llama.cpp's GBNF, told by its ``::=``, with ``root ::=``.
        json_object: True for any JSON object.
        structural_tag: Free text in which a tag begins a part of a given form; vLLM's mapping with
            "structures" and "triggers", or with "format", or the same as text.
        disable_any_whitespace: No space between the tokens of JSON. Otherwise there may be one
            space, or a line break with its indentation.
        disable_additional_properties: Objects of the schema have only the properties it names.
        whitespace_pattern: A regular expression of the space that may stand between the tokens of
            JSON, in place of the default one.

    Raises:
        InvalidParameter: none or several forms are given, or one of them is not what it should be;
            ``.param`` is "structured_outputs".
    """

    json: Any = None  # str | Mapping | bool | None, and what has model_json_schema()
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | Mapping[str, Any] | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        if self.json_object is False:  # the same as not to ask for it
            object.__setattr__(self, "json_object", None)
        given = [name for name in _FORMS if getattr(self, name) is not None]
        if len(given) != 1:
            raise _invalid(
                f"give exactly one of {', '.join(_FORMS)}, not {' and '.join(given) or 'none'}"
            )
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise _invalid(f"{name} must be True or False, not {getattr(self, name)!r:.80}")
        if not isinstance(self.json_object, (bool, type(None))):
            raise _invalid(f"json_object must be True or False, not {self.json_object!r:.80}")
        for name in ("regex", "grammar", "whitespace_pattern"):
            self._check_text(name)
        normal = {
            "json": _schema(self.json),
            "choice": _choices(self.choice),
            "structural_tag": _tag(self.structural_tag),
        }
        for name, value in normal.items():
            object.__setattr__(self, name, value)
        if len(self.key) > MAX_DESCRIPTION_CHARACTERS:
            raise _invalid(
                f"the description of the form has {len(self.key)} characters, more than "
                f"{MAX_DESCRIPTION_CHARACTERS}"
            )

    @property
    def form(self) -> str:
        """The name of the one field that says which form it is."""
        return next(name for name in _FORMS if getattr(self, name) is not None)

    @property
    def key(self) -> str:
        """A text that is the same for the same form, and only for that."""
        # The order of a schema's properties is the order in which they are written: it counts.
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)})

    def _check_text(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if not isinstance(value, str):
            raise _invalid(f"{name} must be text, not {value!r:.80}")
        if not value.strip() and name == "grammar":
            raise _invalid("grammar is empty: it needs at least a rule `start: ...`")
        _check_unicode(name, value)


def structured_outputs_params(value: object) -> StructuredOutputsParams | None:
    """Return parameters from what a user gave: None, the parameters themselves, or their fields.

    Raises:
        InvalidParameter: it is none of these, or a field is unknown or wrong.
    """
    if value is None or isinstance(value, StructuredOutputsParams):
        return value
    if not isinstance(value, Mapping):
        raise _invalid(
            "give StructuredOutputsParams(...) or a mapping of its fields, such as "
            f"{{'json': schema}}, not {value!r:.80}"
        )
    known = {field.name for field in fields(StructuredOutputsParams)}
    unknown = [name for name in value if name not in known]
    if unknown:
        raise _invalid(f"no field is called {unknown[0]!r:.80}; there are {', '.join(known)}")
    given = {name: each for name, each in value.items() if each is not None}
    return StructuredOutputsParams(**given)


def response_format_params(response_format: Mapping[str, Any]) -> StructuredOutputsParams | None:
    """Translate OpenAI's ``response_format``; None for ``{"type": "text"}``, which is any text.

    >>> response_format_params({"type": "json_object"}).form
    'json_object'

    Raises:
        InvalidRequest: it is malformed; ``.param`` is "response_format".
    """
    if not isinstance(response_format, Mapping):
        raise _malformed(f"it must be an object with a type, not {response_format!r:.80}")
    kind = response_format.get("type")
    if kind == "text":
        return None
    try:
        if kind == "json_object":
            return StructuredOutputsParams(json_object=True)
        if kind == "json_schema":
            return _of_json_schema(response_format.get("json_schema"))
        if kind == "structural_tag":
            return StructuredOutputsParams(structural_tag=response_format)
    except InvalidParameter as error:
        raise InvalidRequest(str(error), param="response_format") from error
    raise _malformed(
        "its type must be 'text', 'json_object', 'json_schema' or 'structural_tag', "
        f"not {kind!r:.80}"
    )


def _of_json_schema(given: object) -> StructuredOutputsParams:
    """Translate the object under "json_schema"."""
    if not isinstance(given, Mapping):
        raise _malformed(
            "type 'json_schema' needs a field json_schema: an object with name and schema"
        )
    name = given.get("name")
    if not isinstance(name, str) or not _SCHEMA_NAME.fullmatch(name):
        raise _malformed(
            "json_schema.name must be 1 to 64 letters, digits, underscores or dashes, "
            f"not {name!r:.80}"
        )
    strict = given.get("strict")
    if not isinstance(strict, (bool, type(None))):
        raise _malformed(f"json_schema.strict must be true or false, not {strict!r:.80}")
    schema = given.get("schema")
    if schema is None:  # OpenAI's spec does not require one
        return StructuredOutputsParams(json_object=True)
    if not isinstance(schema, (Mapping, bool)):
        raise _malformed(f"json_schema.schema must be an object, not {schema!r:.80}")
    return StructuredOutputsParams(json=schema)


def _schema(given: Any) -> Any:
    """Return a schema as a dict of its own, or a truth value; None where none is given."""
    if given is None or isinstance(given, bool):
        return given
    if hasattr(given, "model_json_schema"):
        given = given.model_json_schema()
    schema = _own_json("json", given)
    if not isinstance(schema, (dict, bool)):
        raise _invalid(
            f"json must be a JSON schema, an object or a truth value, not {schema!r:.80}"
        )
    return schema


def _tag(given: Any) -> Any:
    if given is None:
        return None
    tag = _own_json("structural_tag", given)
    if not isinstance(tag, dict):
        raise _invalid(f"structural_tag must be an object, not {tag!r:.80}")
    return tag


def _choices(given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    is_list = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    if not is_list or not given or not all(isinstance(one, str) for one in given):
        raise _invalid(f"choice must be a list of at least one text, not {given!r:.80}")
    for one in given:
        _check_unicode("choice", one)
    return tuple(dict.fromkeys(given))


def _own_json(name: str, given: Any) -> Any:
    """Return a copy of a JSON value, read from text or from mappings and lists."""
    try:
        text = given if isinstance(given, str) else json.dumps(given, default=_plain)
        value = json.loads(text, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise _invalid(f"{name} is not JSON: {error}") from error
    return value


def _plain(value: object) -> object:
    """Let mappings that are no dicts, and sequences that are no lists, be written as JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{value!r:.80} is no JSON value")


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _invalid(f"{name} is not valid Unicode: {error}") from error


def _invalid(message: str) -> InvalidParameter:
    return InvalidParameter(f"structured_outputs: {message}", param="structured_outputs")


def _malformed(message: str) -> InvalidRequest:
    return InvalidRequest(f"response_format: {message}", param="response_format")
