"""Tables of settings as frozen models, and settings as keywords of a call."""

from __future__ import annotations

import numbers
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tzk_core.errors import TzkError, nearest
from tzk_core.names import wanted_of_file
from tzk_core.settings.problems import expected, mistyped, shown


@dataclass(frozen=True)
class Matching:
    """A string that matches in full; `wording` says after "expected" what that is."""

    pattern: str
    wording: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The pattern itself where Python and JSON Schema, whose \\w is ASCII's, agree on it."""
        portable = {} if r"\w" in self.pattern else {"pattern": f"^({self.pattern})$"}
        return {**handler(schema), **portable}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise PydanticCustomError("expected", "{wording}", {"wording": self.wording})
        return value


def _named(value: str) -> str:
    if wanted := wanted_of_file(value):
        raise PydanticCustomError("expected", "{wanted}", {"wanted": wanted})
    return value


def _amount(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and value >= 1 or isinstance(value, float) and 0 < value <= 1):
        raise PydanticCustomError(
            "expected", "a number of samples, at least 1, or a share of them above 0 and up to 1.0"
        )
    return value


FileName = Annotated[str, Matching(r"\w[\w.-]*", "a name of letters, digits, '-', '_' and '.'"), AfterValidator(_named)]
"""A name that a folder may have on any system."""

Amount = Annotated[
    int | float,
    BeforeValidator(_amount),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]}
    ),
]
"""How many samples: 100 is a number of them, 0.1 a share; 1 is one sample, 1.0 all."""

# Numbers beyond these bounds are slips, and would end in hours of silence or without memory.
MOST_STEPS = 10**12
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(gt=0, le=MOST_STEPS)]
CountOrNone = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Rate = Annotated[float, Field(gt=0, le=100)]


class Table(BaseModel):
    """A table of a file, in which unknown keys are errors.

    In tables that name a registered part they are its arguments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PartTable(Table):
    """A table that names a registered part and holds its arguments beside its own keys."""

    arguments: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """In a file the arguments stand beside the table's own keys."""
        written = handler(schema)
        table = handler.resolve_ref_schema(written)
        table["properties"].pop("arguments", None)
        table["additionalProperties"] = True
        return written


class Keywords(Table):
    """Settings that a call takes as keywords; a wrong one is a `TzkError`.

    The error says what was expected.
    """

    model_config = ConfigDict(strict=True)

    def __init__(self, *values: Any, **named: Any) -> None:
        keys = list(type(self).model_fields)
        settings = {**dict(zip(keys, values, strict=False)), **named}
        try:
            super().__init__(**{key: _plain(value) for key, value in settings.items()})
        except ValidationError as error:
            raise TzkError("; ".join(_worded(error, keys))) from None


def own_keys(model: type[Table]) -> list[str]:
    """The table's own keys, as a person writes them in the file."""
    return [key for key in model.model_fields if key != "arguments"]


def _worded(error: ValidationError, known: list[str]) -> list[str]:
    """A sentence for each wrong keyword."""
    wrong: dict[str, list[Any]] = {}
    sentences = []
    for detail in error.errors(include_url=False):
        key = str(detail["loc"][0]) if detail["loc"] else ""
        if detail["type"] == "extra_forbidden":
            sentences.append(f"there is no setting {key!r}{nearest(key, known)}")
        elif detail["type"] == "missing":
            sentences.append(f"{'.'.join(map(str, detail['loc']))} has to be given")
        else:
            wrong.setdefault(key, []).append(detail)
    for key, details in wrong.items():
        wanted, value = " or ".join(dict.fromkeys(map(expected, details))), details[0]["input"]
        sentences.append(f"{key}: expected {wanted}, got {_repr(value)}{mistyped(details, value)}")
    return sentences


def _repr(value: Any) -> str:
    return shown(value) if isinstance(value, bool | int | float | str) else f"{value!r}"


def _plain(value: Any) -> Any:
    """A number of another library as Python's own."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value
