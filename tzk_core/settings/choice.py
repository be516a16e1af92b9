"""A registered part, by its name or by a table.

The table has its name as `type`, and its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tzk_core.settings.table import PartTable


class PartChoice(PartTable):
    """A registered part and its arguments, where one key of a table names it."""

    type: str = Field(min_length=1, description="The registered part; all further keys are its arguments.")

    def __str__(self) -> str:
        arguments = ", ".join(f"{key} = {value}" for key, value in self.arguments.items())
        return f"{self.type} ({arguments})" if arguments else self.type

    def to_table(self) -> dict[str, Any]:
        """The part as a file has it: its arguments beside its name."""
        return {"type": self.type, **self.arguments}


class _ShortForm:
    """A name stands for a table of this `type` and no arguments."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(written_out, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(schema)]}


Choice = Annotated[PartChoice, _ShortForm()]
"""A `PartChoice` that may be written as a name, "adam", or as { type = "adam", ... }."""


def written_out(value: Any) -> Any:
    """The table that a name or a table of a file stands for.

    It has its arguments apart.

    A `PartChoice` stays as it is.
    """
    if isinstance(value, PartChoice):
        return value
    table = {"type": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or not isinstance(name := table.get("type"), str) or not name:
        raise PydanticCustomError("expected", "the name of a part, or a table with its name as type and its arguments")
    if set(table) == {"type", "arguments"}:
        return table
    return {"type": name, "arguments": {key: argument for key, argument in table.items() if key != "type"}}
