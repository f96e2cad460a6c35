"""Random JSON schemas, seeded: what OpenAI's users write, nested as they nest it."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["random_one_of", "random_schema"]

PATTERNS = ("^[a-c]{1,4}$", "^(yes|no)!?$", "[0-9]{3}", "^\\d{2}-\\w+$", "a|b", "^x.*y$")
FORMATS = ("date", "ipv4", "uuid", "email", "date-time", "hostname", "color")
SCALARS = ("null", "boolean", "integer", "number", "string")


class _Generator:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.definitions: dict[str, Any] = {}

    def root(self) -> dict[str, Any]:
        schema = self.node(3)
        if self.definitions:
            schema["$defs"] = self.definitions
        return schema

    def node(self, depth: int) -> dict[str, Any]:
        kinds = [self.string, self.integer, self.number, self.fixed, self.simple]
        if depth > 0:
            kinds += [self.object, self.object, self.object, self.array, self.array]
            kinds += [self.places, self.any_of, self.one_of, self.all_of, self.reference, self.map]
        kind = self.draw.choice(kinds)
        return kind(depth - 1)

    def string(self, depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        kind = self.draw.randrange(5)
        if kind == 0:
            schema["pattern"] = self.draw.choice(PATTERNS)
        elif kind == 1:
            schema["format"] = self.draw.choice(FORMATS)
        elif kind == 2:
            schema["minLength"] = self.draw.randrange(5)
            schema["maxLength"] = schema["minLength"] + self.draw.randrange(8)
        return schema

    def integer(self, depth: int) -> dict[str, Any]:
        return {"type": "integer", **self._bounds(lambda: self.draw.randrange(-200, 200), 5)}

    def number(self, depth: int) -> dict[str, Any]:
        return {"type": "number", **self._bounds(lambda: self.draw.uniform(-30, 30), 0.5)}

    def _bounds(self, value: Any, least_room: float) -> dict[str, Any]:
        low = round(value(), 3)
        names = [("minimum", low), ("maximum", low + least_room + abs(round(value(), 3)))]
        bounds = {
            self.draw.choice((name, f"exclusive{name.capitalize()}")): bound
            for name, bound in names
            if self.draw.random() < 0.5
        }
        return bounds

    def fixed(self, depth: int) -> dict[str, Any]:
        values = ["a", "b c", 'quo"te', 3, -1.5, True, False, None, [1, "x"], {"k": {"l": 0}}, "é"]
        if self.draw.random() < 0.3:
            return {"const": self.draw.choice(values)}
        return {"enum": self.draw.sample(values, self.draw.randrange(1, 5))}

    def simple(self, depth: int) -> dict[str, Any]:
        if self.draw.random() < 0.3:
            return {"type": self.draw.sample(SCALARS, 2)}
        return {"type": self.draw.choice(SCALARS[:2])}

    def object(self, depth: int) -> dict[str, Any]:
        names = self.draw.sample(
            ["a", "b", "long name", "é", "d", "x-y"], self.draw.randrange(1, 5)
        )
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: self.node(depth) for name in names},
            "required": [name for name in names if self.draw.random() < 0.6],
        }
        kind = self.draw.randrange(4)
        if kind == 0:
            schema["additionalProperties"] = False
        elif kind == 1:
            schema["additionalProperties"] = self.node(0)
        return schema

    def map(self, depth: int) -> dict[str, Any]:
        values = self.node(min(depth, 0))
        if self.draw.random() < 0.5:
            return {"type": "object", "additionalProperties": values, "maxProperties": 3}
        return {"type": "object", "patternProperties": {"^k[0-9]$": values}}

    def array(self, depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": self.node(depth)}
        if self.draw.random() < 0.7:
            schema["minItems"] = self.draw.randrange(3)
            schema["maxItems"] = schema["minItems"] + self.draw.randrange(3)
        return schema

    def places(self, depth: int) -> dict[str, Any]:
        places = [self.node(depth) for _ in range(self.draw.randrange(1, 4))]
        return {"type": "array", "prefixItems": places, "items": False, "minItems": len(places)}

    def any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.node(depth) for _ in range(self.draw.randrange(1, 4))]}

    def one_of(self, depth: int) -> dict[str, Any]:
        return {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": kind}, "value": self.node(depth)},
                    "required": ["kind", "value"],
                }
                for kind in ("first", "second")
            ]
        }

    def any_one_of(self, depth: int) -> dict[str, Any]:
        """Alternatives drawn without regard to each other, under what holds for all of them."""
        schema: dict[str, Any] = {"oneOf": [self.node(depth) for _ in range(2)]}
        if self.draw.random() < 0.3:
            schema["type"] = "object"
        for alternative in schema["oneOf"] if self.draw.random() < 0.3 else ():
            alternative.pop("type", None)
        return schema if self.draw.random() < 0.7 else {"type": "array", "items": schema}

    def all_of(self, depth: int) -> dict[str, Any]:
        return {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 40}]}

    def reference(self, depth: int) -> dict[str, Any]:
        name = f"def{len(self.definitions)}"
        self.definitions[name] = {}  # its place is taken while it is made
        if self.draw.random() < 0.4:
            reference = {"$ref": f"#/$defs/{name}"}
            self.definitions[name] = {
                "type": "object",
                "properties": {"value": self.node(min(depth, 0)), "next": reference},
                "required": ["value"],
                "additionalProperties": False,
            }
        else:
            self.definitions[name] = self.node(depth)
        return {"$ref": f"#/$defs/{name}"}


def random_schema(seed: int) -> dict[str, Any]:
    """Return a schema of its own for each seed; each has values that fit it."""
    return _Generator(seed).root()


def random_one_of(seed: int) -> dict[str, Any]:
    """Return a schema with a oneOf whose alternatives may overlap, or leave no value at all."""
    generator = _Generator(seed)
    schema = generator.any_one_of(2)
    return {**schema, "$defs": generator.definitions}
