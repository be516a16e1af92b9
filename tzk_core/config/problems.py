"""All problems of a config in one error, with file, table and key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tzk_core.config.schema import ARRAYS, MODELS
from tzk_core.errors import TzkError

Path = tuple[str | int, ...]
"""The way from the top of the file to a value: ("datasets", 0, "size")."""


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    source: the file, or "command line" for an override.
    place: its table and key.
    """

    source: str
    place: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.place, self.message) if part)


class ConfigError(TzkError):
    """A config that cannot be used; `problems` holds everything that was found in one reading."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        if len(lines) > 1:
            lines = [f"the config has {len(lines)} problems"] + [f"  {line}" for line in lines]
        super().__init__("\n".join(lines))


class Problems:
    """Collects problems of one file, given as paths into it, and words their places."""

    def __init__(self, source: str, raw: Mapping[str, Any], overridden: Sequence[Path] = ()) -> None:
        self.source = source
        self.raw = raw
        self.overridden = tuple(overridden)
        self.problems: list[Problem] = []

    def add(self, path: Path, message: str) -> None:
        source = "command line" if any(path[: len(o)] == o for o in self.overridden) else self.source
        problem = Problem(source, place(path, self.raw), message)
        if problem not in self.problems:
            self.problems.append(problem)

    def check(self) -> None:
        """Raises ConfigError if anything was found."""
        if self.problems:
            raise ConfigError(self.problems)


def place(path: Path, raw: Mapping[str, Any]) -> str:
    """A path as a reader of the file sees it: `[training] steps`, `[[datasets]] "mnist" size`."""
    table: tuple[str, ...] = ()
    label = ""
    depth = 0
    value: Any = raw
    for step in path:
        if isinstance(step, str) and (*table, step) not in MODELS:
            break
        value = _inside(value, step)
        if isinstance(step, str):
            table, label = (*table, step), ""
        else:
            name = value.get("name") if isinstance(value, Mapping) else None
            label = f'"{name}"' if isinstance(name, str) else f"#{step + 1}"
        depth += 1
    heading = f"[[{'.'.join(table)}]]" if table in ARRAYS else f"[{'.'.join(table)}]" if table else ""
    return " ".join(part for part in (heading, label, ".".join(str(step) for step in path[depth:])) if part)


def _inside(value: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return value[step] if isinstance(value, list) and step < len(value) else None
    return value.get(step) if isinstance(value, Mapping) else None
