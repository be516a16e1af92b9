"""How a failed check of pydantic's is said in the words of a TOML file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from tzk_core.errors import nearest

_TYPES = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "an array",
    "missing": "one more item",
    "mapping_type": "a table",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "none_required": "nothing",
    "path_type": "a path",
    "set_type": "an array",
    "string_type": "a string",
    "tuple_type": "an array",
}
_BOUNDS = {
    "greater_than": ("gt", "a number above {}"),
    "greater_than_equal": ("ge", "a number of at least {}"),
    "less_than": ("lt", "a number below {}"),
    "less_than_equal": ("le", "a number of at most {}"),
    "literal_error": ("expected", "{}"),
    "too_short": ("min_length", "{} or more items"),
    "too_long": ("max_length", "{} or fewer items"),
}


def expected(detail: Mapping[str, Any]) -> str:
    """What one of pydantic's error details wanted, to stand after "expected"."""
    error_type = detail["type"]
    if error_type == "expected":  # one of the tables' own checks, which is worded already
        return str(detail["msg"])
    if error_type in _TYPES:
        return _TYPES[error_type]
    if error_type in _BOUNDS:
        key, wording = _BOUNDS[error_type]
        return wording.format(detail["ctx"][key])
    return f"something else ({detail['msg']})"


def mistyped(details: Sequence[Mapping[str, Any]], value: Any) -> str:
    """`; did you mean ...?` for a value that resembles one of a key's few values."""
    choices = [detail["ctx"]["expected"] for detail in details if detail["type"] == "literal_error"]
    return nearest(value, re.findall(r"'([^']*)'", " ".join(choices))) if isinstance(value, str) else ""


def shown(value: Any) -> str:
    """A value as the file has it, cut where it is long."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        text = "[" + ", ".join(shown(item) for item in value) + "]"
    else:
        try:
            text = tomli_w.dumps({"v": value})[len("v = ") :].strip()
        except (TypeError, ValueError):  # what TOML has not and JSON has, as null in run.json
            text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
