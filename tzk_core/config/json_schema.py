"""The JSON Schema of a config or a spec, for editors."""

from __future__ import annotations

from typing import Any

from tzk_core.config.schema import Addition, Config
from tzk_core.renamed import MOVED, RENAMED

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(model: type[Config] | type[Addition]) -> dict[str, Any]:
    """The schema of a file as it is written.

    It has arguments of parts beside keys, short forms and old names.

    It says less than `load_config`, which also knows what each part takes and what must fit together.
    """
    title = "TzK config" if model is Config else "TzK spec of an addition"
    schema = _as_written(model.model_json_schema())
    for table, keys in RENAMED.items():
        reference = schema["properties"].get(table, {}).get("$ref", "")
        properties = schema["$defs"].get(reference.rpartition("/")[2], {}).get("properties", {})
        for old, new in keys.items():
            if new in properties:
                properties[old] = {**properties[new], "deprecated": True, "description": f"The old name of {new}."}
    for table, keys in MOVED.items():
        reference = schema["properties"].get(table, {}).get("$ref", "")
        properties = schema["$defs"].get(reference.rpartition("/")[2], {}).get("properties", {})
        for old, part in keys.items():
            if part in properties:
                properties[old] = {"deprecated": True, "description": f"An argument of {part} now."}
    return {"$schema": DIALECT, "title": title, **schema}


def table_schema(schema: dict[str, Any], table: str) -> dict[str, Any]:
    """The part of a file's schema for one table, or one of an array."""
    entry = schema["properties"][table]
    reference: str = entry.get("items", entry)["$ref"]
    definition: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
    return definition


def _as_written(schema: Any) -> Any:
    """pydantic's schema without titles, which repeat names, and without null, which TOML lacks."""
    if isinstance(schema, list):
        return [_as_written(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    named = {key for key in schema if key == "title" and isinstance(schema[key], str)}
    plain = {key: _as_written(value) for key, value in schema.items() if key not in named}
    if plain.get("default", ...) is None:
        del plain["default"]
    if isinstance(default := plain.get("default"), dict) and default.keys() == {"type", "arguments"}:
        plain["default"] = default["type"]  # of a `PartChoice`
    if "anyOf" in plain:
        alternatives = [alternative for alternative in plain.pop("anyOf") if alternative != {"type": "null"}]
        plain = {**(alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}), **plain}
    return plain
