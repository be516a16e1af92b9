"""Imports go one way: no module, and no room, reaches one that reaches it. Imports for types count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tzk_core"
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}
FRONT_DOORS = {"tzk_core", "tzk_core.__main__"}
"""They import rooms for users, lazily or not; no room imports them for more than the version and the errors."""


def imported(source: str) -> Iterator[str]:
    """Modules that a source imports, and names that may be modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in named if name in MODULES]
            yield from modules
            if len(modules) < len(named):
                yield node.module


def module_graph() -> dict[str, set[str]]:
    return {
        name: {other for other in imported(file.read_text(encoding="utf-8")) if other in MODULES} - {name}
        for name, file in MODULES.items()
    }


def room(module: str) -> str:
    """The folder in tzk_core that a module is in; a module of the ground is a room of its own."""
    return ".".join(module.split(".")[:2])


def room_graph(modules: Mapping[str, set[str]]) -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = {}
    for module, others in modules.items():
        rooms.setdefault(room(module), set()).update(room(other) for other in others if room(other) != room(module))
    return rooms


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of a graph; empty where it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tzk_core.model.tzk import TzK\n"
    assert list(imported(source)) == ["typing", "tzk_core.model.tzk"]


@pytest.mark.parametrize("graph", [module_graph, lambda: room_graph(module_graph())], ids=["modules", "rooms"])
def test_imports_go_one_way(graph: object) -> None:
    assert callable(graph)
    inside = {name: others - FRONT_DOORS for name, others in graph().items() if name not in FRONT_DOORS}
    assert not circle(inside), "these import one another: " + " <- ".join(circle(inside))
