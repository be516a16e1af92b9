"""The tables of a config that name registered parts.

Their arguments are set apart and checked, and their defaults are filled in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from tzk_core.config.arguments import PartCheck
from tzk_core.config.choices import CHOICES, as_tables, chosen, naming_key
from tzk_core.config.paths import resolved
from tzk_core.config.problems import Path, Problems
from tzk_core.config.schema import DatasetTable, FlowTable, LayerTable, MetricTable, ObserverTable
from tzk_core.config.watching import missing_pictures
from tzk_core.plugins import (
    Dataset,
    FlowLayer,
    FlowRecipe,
    KnowledgeType,
    Metric,
    ObjectiveTerm,
    Observer,
    Registry,
    Spec,
)
from tzk_core.settings import KnowledgeTable, PartChoice, PartTable, Table, TermTable, own_keys
from tzk_core.version import CORE_PLUGIN

ARRAYS_OF_PARTS: tuple[tuple[Path, type[Spec], type[PartTable], str | None], ...] = (
    (("flow", "layers"), FlowLayer, LayerTable, None),
    (("datasets",), Dataset, DatasetTable, None),
    (("knowledge",), KnowledgeType, KnowledgeTable, "flow"),
    (("evaluation", "metrics"), Metric, MetricTable, None),
    (("objective", "terms"), ObjectiveTerm, TermTable, None),
    (("observers",), Observer, ObserverTable, None),
)
"""Where a file has arrays of tables that name parts, with the default of `type`."""


def prepared_tables(raw: Mapping[str, Any], models: Mapping[tuple[str, ...], type[Table]]) -> dict[str, Any]:
    """The tables as the models take them: arguments of parts apart, short forms in full."""
    prepared = copy.deepcopy(dict(raw))
    if ("flow",) in models:
        prepared.setdefault("flow", {})
    tables: list[tuple[Any, type[PartTable]]] = [(prepared.get("flow"), FlowTable)]
    tables += [(table, model) for path, _, model, _ in ARRAYS_OF_PARTS for _, table in _numbered(prepared, path)]
    tables += [(table, PartChoice) for table in as_tables(prepared)]
    for table, model in tables:
        if isinstance(table, dict):
            write_out(table, model)
    return prepared


def write_out(table: dict[str, Any], model: type[PartTable]) -> None:
    """Move a part's arguments apart, in place, and replace short forms of a table.

    Those whose names the table itself has stand in a table `arguments` of their own.
    """
    keys = own_keys(model)
    apart = table.pop("arguments", {})
    twice = apart if isinstance(apart, dict) else {}  # what stands in both places stays, and is an unknown key
    beside = {key: table.pop(key) for key in list(table) if key not in keys and key not in twice}
    table["arguments"] = {**beside, **apart} if isinstance(apart, dict) else apart
    if model is DatasetTable and isinstance(table.get("name"), str):
        table.setdefault("type", table["name"])
    if model is KnowledgeTable:
        if isinstance(table.get("implies"), str):
            table["implies"] = [table["implies"]]
        if isinstance(observed := table.get("observed"), list) and observed:
            table.setdefault("characteristics", len(observed))


def check_parts(
    prepared: dict[str, Any],
    raw: Mapping[str, Any],
    problems: Problems,
    *,
    parts: Registry,
    lenient: bool,
    overridden: Sequence[Path],
    folder: FilePath | None,
) -> None:
    """Check every part, and fill in its defaults, whole name and paths, in place.

    The whole name, "plugin/name", stays that of the same part whatever else is installed later.
    """
    for where, table, check in named_parts(prepared, parts):
        if check.missing and lenient:
            continue
        if check.missing:
            problems.add(where + naming_key(raw, where), check.missing)
        if not isinstance(table["arguments"], dict):
            continue  # which is reported with the other keys
        for path, message in _argument_problems(check, table["arguments"]):
            problems.add(where + path, message)
        if where not in CHOICES or check.qualified_name != f"{CORE_PLUGIN}/{check.name}":  # whose defaults are plain
            table["recipe" if check.spec_type is FlowRecipe else "type"] = check.qualified_name or check.name
        table["arguments"] = check.resolved(table["arguments"])
        typed = [path for path in overridden if _below(where, path)]
        table["arguments"] = _with_paths(check, table["arguments"], folder=folder, overridden=typed)
    for index, message in ({} if lenient else missing_pictures(prepared.get("pictures"), parts)).items():
        problems.add(("pictures", "draw", index), message)


def _below(where: Path, path: Path) -> bool:
    return path[: len(where)] == where


def _with_paths(
    check: PartCheck, arguments: dict[str, Any], *, folder: FilePath | None, overridden: Sequence[Path]
) -> dict[str, Any]:
    """The arguments of a data set, its paths resolved against the folder of the config.

    Other arguments stay as they are.
    """
    if folder is None or check.spec_type is not Dataset or check.signature is None:
        return arguments
    return resolved(arguments, check.signature, folder, typed=frozenset(str(path[-1]) for path in overridden))


def named_parts(prepared: Mapping[str, Any], parts: Registry) -> Iterator[tuple[Path, dict[str, Any], PartCheck]]:
    """The tables that name a registered part.

    Each has its path, the table, and the part with its arguments.
    """
    flow = prepared.get("flow")

    def check(spec_type: type[Spec], name: str, model: type[PartTable]) -> PartCheck:
        return PartCheck(parts, spec_type, name, own_keys=own_keys(model))

    for place, table, spec_type in chosen(prepared):
        yield place, table, check(spec_type, table["type"], PartChoice)
    if isinstance(flow, dict) and "layers" not in flow and isinstance(recipe := flow.get("recipe", "paper"), str):
        yield ("flow",), flow, check(FlowRecipe, recipe, FlowTable)
    for path, spec_type, model, default in ARRAYS_OF_PARTS:
        for index, table in _numbered(prepared, path):
            if isinstance(name := table.get("type", default), str):
                yield (*path, index), table, check(spec_type, name, model)


def _argument_problems(check: PartCheck, arguments: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """The problems of a part's arguments, by where they stand in the part's table."""
    for argument, message in check.problems(arguments):
        yield ("arguments", argument) if argument in check.own_keys else (argument,), message


def _numbered(prepared: Mapping[str, Any], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The tables of an array, with their places; none where something else stands there."""
    value: Any = prepared
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    for index, table in enumerate(value if isinstance(value, list) else []):
        if isinstance(table, dict):
            yield index, table
