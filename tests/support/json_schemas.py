"""An independent reading of the part of JSON Schema that `tzk schema` writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_LAWS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "minItems": lambda value, bound: len(value) >= bound,
    "maxItems": lambda value, bound: len(value) <= bound,
    "pattern": lambda value, pattern: re.search(pattern, value) is not None,
    "enum": lambda value, choices: value in choices,
    "const": lambda value, choice: value == choice,
}
_SAYS_NOTHING = {"description", "title", "default", "deprecated", "$schema", "$defs"}


def fits(value: Any, schema: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether a value fits a schema within `whole`, whose definitions it refers to; a keyword not known here fails."""
    known = {"$ref", "anyOf", "type", "properties", "required", "additionalProperties", "propertyNames", "items"}
    assert schema.keys() <= known | _LAWS.keys() | _SAYS_NOTHING, schema.keys()
    if "$ref" in schema and not fits(value, whole["$defs"][schema["$ref"].removeprefix("#/$defs/")], whole):
        return False
    if "anyOf" in schema and not any(fits(value, choice, whole) for choice in schema["anyOf"]):
        return False
    if "type" in schema and not _TYPES[schema["type"]](value):
        return False
    if not all(law(value, schema[key]) for key, law in _LAWS.items() if key in schema):
        return False
    if isinstance(value, list) and "items" in schema:
        return all(fits(item, schema["items"], whole) for item in value)
    return not isinstance(value, dict) or _table_fits(value, schema, whole)


def _table_fits(table: Mapping[str, Any], schema: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    rest = schema.get("additionalProperties", True)
    rest = {True: {}, False: None}.get(rest, rest) if isinstance(rest, bool) else rest
    if not all(fits(key, schema.get("propertyNames", {}), whole) for key in table):
        return False
    inner = {key: schema.get("properties", {}).get(key, rest) for key in table}
    return set(schema.get("required", ())) <= table.keys() and all(
        of is not None and fits(table[key], of, whole) for key, of in inner.items()
    )
