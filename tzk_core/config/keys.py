"""Checks of each key of a config by itself: its name, its type, its bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tzk_core.config.problems import Path, Problems
from tzk_core.config.schema import ARRAYS, MODELS
from tzk_core.errors import nearest
from tzk_core.settings import Table, own_keys
from tzk_core.settings.problems import expected, mistyped, shown


def check_keys(
    prepared: Mapping[str, Any], problems: Problems, models: Mapping[tuple[str, ...], type[Table]] = MODELS
) -> None:
    """Add a problem for every unknown key, missing key and bad value."""
    try:
        models[()].model_validate_json(as_json(prepared), strict=True)
        return
    except ValidationError as error:
        details = error.errors(include_url=False)
    wrong: dict[Path, list[Any]] = {}
    for detail in details:
        if detail["type"] == "extra_forbidden":
            problems.add(detail["loc"], _unknown_key(detail["loc"], models))
        elif detail["type"] == "missing":
            problems.add(detail["loc"], "is required")
        elif detail["type"] == "too_short" and _value(prepared, detail["loc"]):
            continue  # its faulty tables were left out, and each has a problem of its own
        else:
            wrong.setdefault(_in_file(detail["loc"], prepared), []).append(detail)
    for where, of_key in wrong.items():
        value, alternatives = _value(prepared, where), list(dict.fromkeys(map(expected, of_key)))
        if where in ARRAYS and isinstance(value, Mapping):
            alternatives = [f"tables that are each headed [[{'.'.join(map(str, where))}]]"]
        wanted = " or ".join(alternatives)
        problems.add(where, f"expected {wanted}, got {shown(value)}{mistyped(of_key, value)}")


def as_json(value: Any) -> str:
    """A value as JSON, with dates as strings.

    From JSON pydantic is strict about types, and still takes an array for a tuple.
    """
    return json.dumps(value, default=str)


def _in_file(location: Path, prepared: Mapping[str, Any]) -> Path:
    """pydantic's location of a wrong value, without the name of the union's member."""
    value: Any = prepared
    for depth, step in enumerate(location):
        if not (isinstance(value, Mapping) and step in value or isinstance(value, list) and isinstance(step, int)):
            return location[:depth]
        value = value[step]  # type: ignore[index]
    return location


def _value(prepared: Mapping[str, Any], path: Path) -> Any:
    value: Any = prepared
    for step in path:
        value = value[step]
    return value


def _unknown_key(path: Path, models: Mapping[tuple[str, ...], type[Table]]) -> str:
    """The message for an unknown key.

    It names the nearest key of the same table, else the only other table that has this key. A key that a config has and
    a spec has not is the run's.
    """
    table = tuple(step for step in path[:-1] if isinstance(step, str))
    key = str(path[-1])
    if models is not MODELS and key in own_keys(MODELS.get(table, Table)):
        return "is no part of a spec, which says what is added: all else stays as the run has it"
    if table in models and (suggestion := nearest(key, own_keys(models[table]))):
        return "unknown key" + suggestion
    homes = [".".join(name) for name, model in models.items() if name and key in own_keys(model)]
    return "unknown key" + (f"; it belongs in [{homes[0]}]" if len(homes) == 1 else "")
