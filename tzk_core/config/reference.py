"""What each key of a table may be, for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tzk_core.config.json_schema import json_schema, table_schema
from tzk_core.config.schema import ADDITION_MODELS, ARRAYS, MODELS, Addition, Config
from tzk_core.settings.problems import shown


class Key(NamedTuple):
    """One key of a table."""

    name: str
    type: str
    default: str
    bounds: str
    help: str


class Reference(NamedTuple):
    """One table: its heading, purpose and keys, and whether it takes a part's arguments."""

    heading: str
    summary: str
    keys: tuple[Key, ...]
    open: bool


TABLES = tuple(path[0] for path in MODELS if len(path) == 1)
"""The names of all tables."""


def references(table: str) -> list[Reference]:
    """A table of a config, and that of a spec where it holds other keys."""
    path = (table,)
    heading = f"[[{table}]]" if path in ARRAYS else f"[{table}]"
    tables = [_reference(heading, table_schema(json_schema(Config), table))]
    if ADDITION_MODELS.get(path, MODELS[path]) is not MODELS[path]:
        of_spec = table_schema(json_schema(Addition), table)
        tables.append(_reference(f"{heading} of a spec, for `tzk add`", of_spec))
    return tables


def every_table() -> list[Reference]:
    """The keys at the head of a file, then all of its tables.

    Those within others come behind them.
    """
    schema = json_schema(Config)
    plain = {name: key for name, key in schema["properties"].items() if (name,) not in MODELS}
    keys = tuple(_keys(plain, schema.get("required", ())))
    found = [Reference("The head of the file", "keys above the first table.", keys, open=False)]
    for table in TABLES:
        found += references(table)
        for path in MODELS:
            if len(path) == 2 and path[0] == table:
                name = ".".join(path)
                definition = schema["$defs"][MODELS[path].__name__]
                found.append(_reference(f"[[{name}]]" if path in ARRAYS else f"[{name}]", definition))
    return found


def _reference(heading: str, schema: Mapping[str, Any]) -> Reference:
    summary = " ".join(schema["description"].split()).partition(": ")[2]
    required = schema.get("required", ())
    return Reference(heading, summary, tuple(_keys(schema["properties"], required)), schema["additionalProperties"])


def _keys(properties: Mapping[str, Any], required: Any) -> Iterator[Key]:
    for name, schema in properties.items():
        if name in required:
            default = "required"
        else:
            value = schema.get("default")
            default = "none" if value in (None, [], {}) else shown(value)
        yield Key(name, _type(schema), default, _bounds(schema), schema.get("description", ""))


_PLAIN = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "string"}


def _type(schema: Mapping[str, Any]) -> str:
    """`whole number`, `"adam" or "muon"`, `array of strings`."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return " or ".join(map(shown, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        inner = schema["items"]
        return "array of tables" if "$ref" in inner else f"array of {_type(inner)}s"
    return _PLAIN.get(schema.get("type", ""), "table")


_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


def _bounds(schema: Mapping[str, Any]) -> str:
    """`above 0, at most 100`; of alternatives, each one's."""
    if "anyOf" in schema:
        return " or ".join(bounds for bounds in map(_bounds, schema["anyOf"]) if bounds)
    return ", ".join(text.format(_number(schema[key])) for key, text in _BOUNDS.items() if key in schema)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or not value.is_integer() else f"{int(value):,}"
