"""The part of JSON Schema that the manifest needs, so that the runtime needs no package for it."""

import re
from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}

KEYWORDS = frozenset(
    {
        "$schema", "$id", "$defs", "$ref", "title", "description", "type", "enum", "const",
        "properties", "required", "additionalProperties", "items", "minItems", "minProperties",
        "minimum", "pattern",
    }
)  # fmt: skip
"""What `violation` understands; a schema with any other keyword is refused."""


def violation(value: object, schema: Mapping[str, Any]) -> str | None:
    """The first rule of a JSON Schema that a value breaks, with its place; None if it keeps all.

    Args:
        value: JSON data.
        schema: made of `KEYWORDS`; ``$ref`` points into the schema's own ``$defs``.

    Raises:
        KeyError: the schema uses another keyword.

    Example:
        >>> violation({"tasks": []}, {"properties": {"tasks": {"type": "array", "minItems": 1}}})
        'tasks must hold at least 1 entry, found []'
    """
    return _check(value, schema, schema.get("$defs", {}), "")


def _check(
    value: object, schema: Mapping[str, Any], defs: Mapping[str, Any], at: str
) -> str | None:
    unknown = set(schema) - KEYWORDS
    if unknown:
        raise KeyError(f"JSON Schema keywords not understood: {', '.join(sorted(unknown))}")
    if "$ref" in schema:
        schema = defs[schema["$ref"].removeprefix("#/$defs/")]
    rule = _scalar_rule(value, schema)
    if rule is not None:
        return f"{at or 'it'} must {rule}, found {_short(value)}"
    if isinstance(value, dict):
        return _check_object(value, schema, defs, at)
    if isinstance(value, list) and "items" in schema:
        for i, entry in enumerate(value):
            found = _check(entry, schema["items"], defs, f"{at}[{i}]")
            if found is not None:
                return found
    return None


def _scalar_rule(value: object, schema: Mapping[str, Any]) -> str | None:
    """What the value itself has to be, where it is not."""
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, name) for name in names):
            return f"be of type {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"be one of {', '.join(map(repr, schema['enum']))}"
    if "const" in schema and value != schema["const"]:
        return f"be {schema['const']!r}"
    if isinstance(value, int | float) and value < schema.get("minimum", value):
        return f"be at least {schema['minimum']}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return f"match {schema['pattern']}"
    if isinstance(value, list | dict):
        least = schema.get("minItems" if isinstance(value, list) else "minProperties", 0)
        if len(value) < least:
            return f"hold at least {least} {'entry' if least == 1 else 'entries'}"
    return None


def _check_object(
    value: dict[str, Any], schema: Mapping[str, Any], defs: Mapping[str, Any], at: str
) -> str | None:
    properties: Mapping[str, Any] = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            return f"{at or 'it'} must hold {name!r}"
    for name, entry in value.items():
        place = f"{at}.{name}" if at else name
        if name in properties:
            found = _check(entry, properties[name], defs, place)
        elif rest is False:
            return f"{at or 'it'} must hold nothing but {', '.join(properties)}, found {name!r}"
        else:
            found = None if rest is True else _check(entry, rest, defs, place)
        if found is not None:
            return found
    return None


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
