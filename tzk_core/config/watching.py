"""The observers and pictures of a config.

The command line adds some, and a finished run does without those that are not installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.moved import home
from tzk_core.plugins import Observer, Picture, Registry, Spec


def with_observers(tables: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The tables with one [[observers]] for each name, unless they have one of its type."""
    written = tables.get("observers", [])
    if not names or not isinstance(written, list):
        return tables
    there = [table.get("type") for table in written if isinstance(table, Mapping)]
    more = [{"type": name} for name in dict.fromkeys(names) if name not in there]
    return {**tables, "observers": [*written, *more]}


def without_absent(tables: Mapping[str, Any], parts: Registry) -> dict[str, Any]:
    """The tables without observers and pictures that are not installed.

    A trained model is the same without them.
    """
    present = dict(tables)
    observers, pictures = tables.get("observers"), tables.get("pictures")
    if isinstance(observers, list):
        present["observers"] = [
            table
            for table in observers
            if not isinstance(table, Mapping) or not _absent(parts, Observer, table.get("type"))
        ]
    if isinstance(pictures, Mapping) and isinstance(pictures.get("draw"), list):
        draw = [name for name in pictures["draw"] if not _absent(parts, Picture, name)]
        present["pictures"] = {**pictures, "draw": draw}
    return present


def missing_pictures(pictures: Any, parts: Registry) -> dict[int, str]:
    """What to say of every name in `draw` that is no picture, by its place.

    Pictures that the core had once are left out at the end of the run, with a note: older configs name them.
    """
    draw = pictures.get("draw") if isinstance(pictures, Mapping) else None
    names = draw if isinstance(draw, list) else []
    messages = {i: _absent(parts, Picture, name) for i, name in enumerate(names) if not home(Picture.kind, str(name))}
    return {i: message for i, message in messages.items() if message}


def _absent(parts: Registry, spec_type: type[Spec], name: Any) -> str:
    """Why a name cannot be used; "" if it can, and for what is no name."""
    if not isinstance(name, str):
        return ""
    try:
        parts.find(spec_type, name)
    except TzkError as error:
        return str(error)
    return ""
