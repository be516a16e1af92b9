"""The keys of a config that choose a part.

They name it, or hold a table of it and its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tzk_core.config.problems import Path
from tzk_core.plugins import Base, Optimizer, Schedule, Spec

CHOICES: dict[tuple[str, str], type[Spec]] = {
    ("flow", "base"): Base,
    ("training", "optimizer"): Optimizer,
    ("training", "schedule"): Schedule,
}
"""By table and key, the type of the part."""


def as_tables(tables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables of all parts that these keys choose; a name becomes one, in place."""
    written = []
    for name, key in CHOICES:
        table = tables.get(name)
        if isinstance(table, dict) and isinstance(chosen := table.get(key), str | dict):
            table[key] = {"type": chosen} if isinstance(chosen, str) else chosen
            written.append(table[key])
    return written


def chosen(tables: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any], type[Spec]]]:
    """Path, table and type of every part that these keys choose."""
    for place, spec_type in CHOICES.items():
        table = tables.get(place[0])
        part = table.get(place[1]) if isinstance(table, dict) else None
        if isinstance(part, dict) and isinstance(part.get("type"), str):
            yield place, part, spec_type


def naming_key(raw: Mapping[str, Any], where: Path) -> Path:
    """The key that names a part, as the file has it, within the part's table."""
    if where in CHOICES:
        return () if isinstance(raw[str(where[0])][str(where[1])], str) else ("type",)
    if where == ("flow",):
        return ("recipe",)
    return ("name",) if where[0] == "datasets" and "type" not in raw["datasets"][where[1]] else ("type",)
