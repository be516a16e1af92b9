"""Overrides from the command line: `training.steps=100`, `datasets.0.size=16`, `datasets.mnist.size=32`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tzk_core.config import toml
from tzk_core.config.problems import ConfigError, Path, Problem
from tzk_core.errors import nearest

MOST_DIGITS = 9
"""Of the number of an item."""


def apply(raw: Mapping[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[Path]]:
    """The tables with the overrides put in, and the paths to these values.

    `raw` is not changed. Tables that an override creates are among the paths.

    Raises:
        ConfigError: with every override that cannot be read or leads nowhere.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(raw))
    paths: list[Path] = []
    problems: list[Problem] = []
    for override in overrides:
        try:
            paths.append(_apply_one(changed, override))
        except _Misplaced as error:
            problems.append(Problem("command line", override, str(error)))
    if problems:
        raise ConfigError(problems)
    return changed, paths


class _Misplaced(Exception):
    """An override that cannot be applied, with the reason."""


def _apply_one(raw: dict[str, Any], override: str) -> Path:
    if any("\ud800" <= letter <= "\udfff" for letter in override):
        raise _Misplaced("expected text in UTF-8; got bytes that are none")
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise _Misplaced("expected key=value with dots between table and key, such as training.steps=100")
    path: list[str | int] = []
    created: Path | None = None
    inside: Any = raw
    for depth, step in enumerate(steps):
        last = depth == len(steps) - 1
        if isinstance(inside, list):
            place: str | int = _item(inside, step, ".".join(steps[:depth]))
        elif isinstance(inside, dict):
            place = step
            if not last and step not in inside:
                inside[step] = {}
                created = created or (*path, step)
        else:
            raise _Misplaced(f"{'.'.join(steps[:depth])} is a value, not a table")
        path.append(place)
        if last:
            inside[place] = _value(text.strip())
        else:
            inside = inside[place]
    return created or tuple(path)


def _item(tables: list[Any], step: str, parent: str) -> int:
    """The index of an array's item that is called by number or by name."""
    if step.isdecimal() and len(step) <= MOST_DIGITS and int(step) < len(tables):
        return int(step)
    names = [table.get("name") for table in tables if isinstance(table, dict)]
    if step in names:
        return next(i for i, table in enumerate(tables) if isinstance(table, dict) and table.get("name") == step)
    known = [name for name in names if isinstance(name, str)]
    raise _Misplaced(
        f"{parent} has no item {step!r}{nearest(step, known)} "
        f"(it has {len(tables)}, by number from 0" + (f", or by name: {', '.join(known)})" if known else ")")
    )


def _value(text: str) -> Any:
    """The text as a TOML value; any other text is a bare string.

    A text that starts as a TOML value and is then broken off is an error.
    """
    try:
        parsed = toml.parse(f"value = {text}")
    except toml.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise _Misplaced(f"the value {text} is not valid TOML ({error})") from None
        return text
    except ValueError:
        raise _Misplaced(f"the value has a number of more digits than can be read: {text[:20]}...") from None
    return parsed["value"] if len(parsed) == 1 else text
