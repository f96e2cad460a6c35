"""Free text in which tags begin parts of a given form, as a grammar.

vLLM takes two descriptions: its older one has "structures" and "triggers", the newer one is
xgrammar's tree of formats under "format".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from toolkit.errors import InvalidParameter
from toolkit.sampling.grammar.schema import JsonStyle, enforceable_schema

__all__ = ["tag_grammar"]

_ANY_TEXT = r"/(.|\n)*/"
# Text without any of them is one expression, which gets larger with each.
_MAX_TRIGGERS = 100


def tag_grammar(tag: Mapping[str, Any], style: JsonStyle) -> str:
    """Return the grammar of a structural tag.

    Raises:
        InvalidParameter: it is malformed, or has a format that is not known here.
    """
    rules = _Rules(style)
    if "format" in tag:
        start = rules.format(tag["format"])
    else:
        start = rules.triggered(_old_tags(tag), _texts(tag, "triggers"), {})
    return "\n".join([f"start: {start}", *rules.lines])


class _Rules:
    """The rules of one grammar, as they are made."""

    def __init__(self, style: JsonStyle) -> None:
        self.lines: list[str] = []
        self._style = style
        self._kinds: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "const_string": lambda given: _quoted(_text(given, "value")),
            "json_schema": lambda given: self._json(given.get("json_schema")),
            "regex": lambda given: self._regex(_text(given, "pattern")),
            "any_text": lambda given: self._named("TEXT", _ANY_TEXT),
            "sequence": lambda given: self._joined(given, " "),
            "or": lambda given: self._joined(given, " | "),
            "tag": self._tag,
            "triggered_tags": lambda given: self.triggered(
                _mappings(given, "tags"), _texts(given, "triggers"), given
            ),
            "tags_with_separator": self._separated,
        }

    def format(self, given: Any) -> str:
        """Return what stands for a format in a rule."""
        if not isinstance(given, Mapping):
            raise _invalid(f"a format must be an object with a type, not {given!r:.80}")
        kind = self._kinds.get(str(given.get("type")))
        if kind is None:
            raise _invalid(
                f"a format of type {given.get('type')!r:.80} is not known; there are "
                f"{', '.join(self._kinds)}"
            )
        return kind(given)

    def triggered(
        self, tags: list[Mapping[str, Any]], triggers: list[str], given: Mapping[str, Any]
    ) -> str:
        """Return free text in which a trigger must become one of the tags that begin with it."""
        if not tags or not triggers:
            raise _invalid("it needs at least one tag and one trigger")
        bodies: dict[str, list[str]] = {trigger: [] for trigger in triggers}
        if len(bodies) > _MAX_TRIGGERS:
            raise _invalid(f"it has {len(bodies)} triggers, more than {_MAX_TRIGGERS}")
        for tag in tags:
            begin = _text(tag, "begin")
            # Where several begin a tag, it belongs to the longest.
            trigger = max(filter(begin.startswith, bodies), key=len, default=None)
            if trigger is None:
                raise _invalid(f"no trigger begins the tag {begin!r:.80}")
            bodies[trigger].append(self._body(tag, begin[len(trigger) :]))
        options = []
        for trigger, own in bodies.items():
            if not own:
                raise _invalid(f"no tag begins with the trigger {trigger!r:.80}")
            # Lazy: the text ends with the first trigger in it, which so is in no other text.
            text = self._named("trigger", f"{_ANY_TEXT} {_quoted(trigger)}", lazy=True)
            options.append(f"{text} ({' | '.join(own)})")
        any_tag = self._named("tags", " | ".join(options))
        at_least_one, stops = given.get("at_least_one"), given.get("stop_after_first")
        count = "" if at_least_one and stops else "?" if stops else "+" if at_least_one else "*"
        rest = "" if stops and at_least_one else f" {self._last_text(list(bodies))}"
        return f"{any_tag}{count}{rest}"

    def _last_text(self, triggers: list[str]) -> str:
        """Return text without a trigger, which is what the last of it is."""
        without = " & ".join(f"~/(.|\\n)*{_escaped(trigger)}(.|\\n)*/" for trigger in triggers)
        return self._named("LAST_TEXT", without)

    def _tag(self, given: Mapping[str, Any]) -> str:
        return f"({self._body(given, _text(given, 'begin'))})"

    def _body(self, tag: Mapping[str, Any], begin: str) -> str:
        """Return a tag: what is left of its beginning, its content and its end."""
        if "content" in tag:
            content = self.format(tag["content"])
        else:
            content = self._json(tag.get("schema", True))
        end = tag.get("end", "")
        ends = [end] if isinstance(end, str) else _texts(tag, "end")
        closed = " | ".join(map(_quoted, ends))
        is_text = isinstance(tag.get("content"), Mapping) and tag["content"]["type"] == "any_text"
        if is_text:  # up to the first end
            return f"{_quoted(begin)} {self._until(ends)}"
        return f"{_quoted(begin)} ({content}) ({closed})"

    def _until(self, ends: list[str]) -> str:
        if not all(ends):
            return self._named("TEXT", _ANY_TEXT)
        options = [self._named("until", f"{_ANY_TEXT} {_quoted(end)}", lazy=True) for end in ends]
        return f"({' | '.join(options)})"

    def _separated(self, given: Mapping[str, Any]) -> str:
        tags = self._named("tag", " | ".join(map(self._tag, _mappings(given, "tags"))))
        separator = _quoted(_text(given, "separator"))
        repeated = "" if given.get("stop_after_first") else f" ({separator} {tags})*"
        return f"({tags}{repeated}){'' if given.get('at_least_one') else '?'}"

    def _joined(self, given: Mapping[str, Any], joint: str) -> str:
        parts = [self.format(each) for each in _mappings(given, "elements")]
        return self._named("part", joint.join(f"({part})" for part in parts))

    def _json(self, schema: Any) -> str:
        schema = enforceable_schema(schema, self._style)
        return self._named("json", f"%json {json.dumps(schema)}")

    def _regex(self, pattern: str) -> str:
        return self._named("REGEX", f"/{pattern.replace('/', chr(92) + '/')}/")

    def _named(self, stem: str, body: str, *, lazy: bool = False) -> str:
        """Give a rule a name of its own."""
        name = f"{stem}_{len(self.lines)}"
        self.lines.append(f"{name}{'[lazy]' if lazy else ''}: {body}")
        return name


def _old_tags(tag: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _mappings(tag, "structures")


def _mappings(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = given.get(name)
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise _invalid(f"{name} must be a list of objects, not {value!r:.80}")
    return value


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise _invalid(f"{name} must be a list of texts, not {value!r:.80}")
    return value


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise _invalid(f"{name} must be text, not {value!r:.80}")
    return value


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _escaped(text: str) -> str:
    """Return a text as a regular expression between slashes."""
    return "".join(each if each.isalnum() else f"\\x{{{ord(each):x}}}" for each in text)


def _invalid(message: str) -> InvalidParameter:
    return InvalidParameter(
        f"structured_outputs: structural_tag: {message}", param="structured_outputs"
    )
