"""From a TOML file and overrides to a checked `Config`, or to one error that lists everything wrong."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from tzk_core.config.arguments import PartCheck
from tzk_core.config.keys import as_json, check_keys
from tzk_core.config.overrides import apply
from tzk_core.config.paths import resolved
from tzk_core.config.problems import ConfigError, Path, Problem, Problems
from tzk_core.config.rules import Base, Sections, broken_rules
from tzk_core.config.schema import (
    ADDITION_MODELS,
    MODELS,
    AdditionSpec,
    Config,
    DatasetTable,
    EvaluationTable,
    FlowTable,
    LayerTable,
    PublishedTable,
)
from tzk_core.errors import TzkError, nearest
from tzk_core.files import NotRegular, check_regular, shown_path
from tzk_core.plugins import Dataset, FlowLayer, FlowRecipe, KnowledgeType, Registry, Spec, registry
from tzk_core.renamed import RENAMED, with_new_names
from tzk_core.settings import KnowledgeTable, ObjectiveTable, PartTable, Table, own_keys

LARGEST = 10_000_000
"""Bytes of a config; what is larger is some other file."""

DEEPEST = 50
TOO_DEEP = f"brackets are nested too deep to be read: expected at most {DEEPEST} within one another"

AnyTable = TypeVar("AnyTable", bound=Table)


def load_config(path: FilePath | str, overrides: Sequence[str] = ()) -> Config:
    """Reads a config and checks all of it, the arguments of its parts included.

    `overrides` are texts such as "training.steps=100" or "datasets.mnist.size=32", put in before anything is
    checked. Raises ConfigError with every problem (file, table, key), and MissingPlugin where a plugin that
    the config asks for is not installed, since nothing else can be said before that.
    """
    return _checked(
        Config, MODELS, read_toml(path), source=str(path), overrides=overrides, folder=FilePath(path).parent
    )


def load_run_config(path: FilePath | str) -> Config:
    """The config.toml of a run. What is not installed here is no error: tables of such parts stay as they are."""
    return _checked(Config, MODELS, read_toml(path), source=str(path), lenient=True, folder=FilePath(path).parent)


def load_addition(path: FilePath | str, base: Base, overrides: Sequence[str] = ()) -> AdditionSpec:
    """Reads a spec of what is added to `base` and checks all of it, as `load_config` does a config."""
    return _checked(
        AdditionSpec,
        ADDITION_MODELS,
        read_toml(path),
        source=str(path),
        overrides=overrides,
        base=base,
        folder=FilePath(path).parent,
    )


def read_toml(path: FilePath | str) -> dict[str, Any]:
    """The tables of a TOML file, unchecked; ConfigError if there is no such file, or it cannot be read."""
    path = FilePath(path)
    try:
        return tomllib.loads(_text(path))
    except NotRegular as error:
        raise ConfigError([Problem(str(path), "", f"expected a TOML file, got {error.kind}")]) from None
    except FileNotFoundError:
        raise ConfigError([Problem(str(path), "", f"no such file{_neighbours(path)}")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(str(path), "", f"not valid TOML: {error}")]) from None
    except UnicodeDecodeError as error:
        message = f"not UTF-8, as TOML is ({error.reason} at byte {error.start}): save it as UTF-8"
        raise ConfigError([Problem(str(path), "", message)]) from None
    except ValueError as error:  # numbers of more digits than Python reads
        raise ConfigError([Problem(str(path), "", f"cannot be read: {error}")]) from None
    except RecursionError:
        raise ConfigError([Problem(str(path), "", TOO_DEEP)]) from None
    except OSError as error:
        raise ConfigError([Problem(shown_path(path), "", f"cannot be read: {error.strerror}")]) from None


def _text(path: FilePath) -> str:
    """The text of a config, without the byte-order mark that some editors put in front."""
    check_regular(path)
    with path.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        message = f"expected a config, of at most {LARGEST:,} bytes; this file is larger"
        raise ConfigError([Problem(str(path), "", message)])
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def config_from(
    tables: Mapping[str, Any],
    source: str = "config",
    overrides: Sequence[str] = (),
    *,
    parts: Registry | None = None,
) -> Config:
    """Checks tables as TOML has them; `source` is what errors call them, `parts` replaces the installed
    plugins."""
    return _checked(Config, MODELS, tables, source=source, overrides=overrides, parts=parts)


def addition_from(
    tables: Mapping[str, Any],
    base: Base,
    source: str = "spec",
    *,
    overrides: Sequence[str] = (),
    parts: Registry | None = None,
) -> AdditionSpec:
    """The same for the tables of a spec."""
    return _checked(AdditionSpec, ADDITION_MODELS, tables, source=source, overrides=overrides, parts=parts, base=base)


def _checked(
    whole: type[AnyTable],
    models: Mapping[tuple[str, ...], type[Table]],
    tables: Mapping[str, Any],
    *,
    source: str,
    overrides: Sequence[str] = (),
    parts: Registry | None = None,
    base: Base | None = None,
    lenient: bool = False,
    folder: FilePath | None = None,
) -> AnyTable:
    if not _within(DEEPEST, tables):
        raise ConfigError([Problem(source, "", TOO_DEEP)])
    raw, overridden = apply(tables, overrides)
    raw, overridden = _with_new_names(raw, overridden, source, warn=not lenient)
    parts = parts or registry()
    wanted = None if lenient else raw.get("plugins")
    if isinstance(wanted, list) and all(isinstance(name, str) for name in wanted):
        parts.require(wanted, wanted_by=source)
    problems = Problems(source, raw, overridden)
    prepared = _prepared(raw, models)
    check_keys(prepared, problems, models)
    _check_parts(prepared, raw, problems, parts=parts, lenient=lenient, overridden=overridden, folder=folder)
    for where, message in broken_rules(_sections(prepared, problems, models, base=base)):
        problems.add(where, message)
    problems.check()
    return whole.model_validate_json(as_json(prepared), strict=True)


def _check_parts(
    prepared: dict[str, Any],
    raw: Mapping[str, Any],
    problems: Problems,
    *,
    parts: Registry,
    lenient: bool,
    overridden: Sequence[Path],
    folder: FilePath | None,
) -> None:
    """Check the arguments of every part, and fill in its defaults, its whole name and the paths of its files, in place.

    The whole name, "plugin/name", stays that of the same part whatever else is installed later.
    """
    for where, table, check in _parts(prepared, parts):
        if check.missing and lenient:
            continue
        if check.missing:
            problems.add(where + (_naming_key(raw, where),), check.missing)
        if not isinstance(table["arguments"], dict):
            continue  # which is reported with the other keys
        for argument, message in check.problems(table["arguments"]):
            problems.add((*where, *(["arguments"] if argument in check.own_keys else []), argument), message)
        if check.qualified_name:
            table["recipe" if check.spec_type is FlowRecipe else "type"] = check.qualified_name
        table["arguments"] = check.resolved(table["arguments"])
        if folder is not None and check.spec_type is Dataset and check.signature is not None:
            typed = frozenset(str(path[-1]) for path in overridden if path[: len(where)] == where)
            table["arguments"] = resolved(table["arguments"], check.signature, folder, typed=typed)


def _with_new_names(
    raw: Mapping[str, Any], overridden: Sequence[Path], source: str, *, warn: bool
) -> tuple[dict[str, Any], list[Path]]:
    """The tables, and the paths to what overrides set, with old names of keys replaced."""
    tables = dict(raw)
    for name in RENAMED.keys() & raw.keys():
        if isinstance(raw[name], Mapping):
            try:
                tables[name] = with_new_names(raw[name], name, warn=warn)
            except TzkError as error:
                raise ConfigError([Problem(source, f"[{name}]", str(error))]) from None
    renamed: dict[Path, Path] = {
        (name, old): (name, new) for name, keys in RENAMED.items() for old, new in keys.items()
    }
    return tables, [renamed.get(path, path) for path in overridden]


def _within(depth: int, value: Any) -> bool:
    """Whether tables and arrays are nested at most so deep."""
    if not isinstance(value, Mapping | list):
        return True
    inside = value.values() if isinstance(value, Mapping) else value
    return depth > 0 and all(_within(depth - 1, item) for item in inside)


def _prepared(raw: Mapping[str, Any], models: Mapping[tuple[str, ...], type[Table]]) -> dict[str, Any]:
    """The tables as the models take them: arguments of parts apart, and short forms written out."""
    prepared = copy.deepcopy(dict(raw))
    flow = prepared.setdefault("flow", {}) if ("flow",) in models else prepared.get("flow")
    tables: list[tuple[Any, type[PartTable]]] = [(flow, FlowTable)]
    tables += [(table, LayerTable) for table in _tables(flow.get("layers") if isinstance(flow, dict) else None)]
    tables += [(table, DatasetTable) for table in _tables(prepared.get("datasets"))]
    tables += [(table, KnowledgeTable) for table in _tables(prepared.get("knowledge"))]
    for table, model in tables:
        if isinstance(table, dict):
            write_out(table, model)
    return prepared


def write_out(table: dict[str, Any], model: type[PartTable]) -> None:
    """Put the arguments of a part apart, in place, and write short forms of a table out.

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


def _tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _sections(
    prepared: Mapping[str, Any],
    problems: Problems,
    models: Mapping[tuple[str, ...], type[Table]],
    *,
    base: Base | None,
) -> Sections:
    """The tables that are valid by themselves, so that rules between them are checked even beside faulty ones."""
    sections = Sections(
        datasets=_valid_tables(prepared.get("datasets"), DatasetTable),
        knowledge=_valid_tables(prepared.get("knowledge"), KnowledgeTable),
        published=_valid_tables(prepared.get("published"), PublishedTable),
        objective=_valid(prepared.get("objective", {}), ObjectiveTable),
        training=_valid(prepared.get("training"), models[("training",)]),
        evaluation=_valid(prepared.get("evaluation", {}), EvaluationTable),
        base=base,
    )
    counts = {"datasets": len(sections.datasets), "knowledge": len(sections.knowledge)}
    sections.whole = all(
        isinstance(tables := prepared.get(name, []), list) and len(tables) == count for name, count in counts.items()
    )
    flow = prepared.get("flow")
    if isinstance(flow, dict) and "layers" in flow:
        for key in (["recipe"] if "recipe" in flow else []) + list(flow.get("arguments", {})):
            problems.add(("flow", key), "a flow of [[flow.layers]] takes no recipe and no arguments of one")
    return sections


def _valid_tables(tables: Any, model: type[AnyTable]) -> dict[int, AnyTable]:
    checked = {i: _valid(table, model) for i, table in enumerate(tables if isinstance(tables, list) else [])}
    return {i: table for i, table in checked.items() if table is not None}


def _valid(table: Any, model: type[AnyTable]) -> AnyTable | None:
    try:
        return model.model_validate_json(as_json(table), strict=True)
    except ValidationError:
        return None


def _parts(prepared: Mapping[str, Any], parts: Registry) -> Iterator[tuple[Path, dict[str, Any], PartCheck]]:
    """Every table that names a registered part: its path, the table, and the part with its arguments."""
    flow = prepared.get("flow")

    def check(spec_type: type[Spec], name: str, model: type[PartTable]) -> PartCheck:
        return PartCheck(parts, spec_type, name, own_keys=own_keys(model))

    if isinstance(flow, dict) and "layers" not in flow and isinstance(recipe := flow.get("recipe", "paper"), str):
        yield ("flow",), flow, check(FlowRecipe, recipe, FlowTable)
    arrays: tuple[tuple[Path, Any, type[Spec], type[PartTable], str | None], ...] = (
        (
            ("flow", "layers"),
            flow.get("layers") if isinstance(flow, dict) else None,
            FlowLayer,
            LayerTable,
            None,
        ),
        (("datasets",), prepared.get("datasets"), Dataset, DatasetTable, None),
        (("knowledge",), prepared.get("knowledge"), KnowledgeType, KnowledgeTable, "flow"),
    )
    for path, tables, spec_type, model, default in arrays:
        for index, table in enumerate(tables if isinstance(tables, list) else []):
            if isinstance(table, dict) and isinstance(name := table.get("type", default), str):
                yield (*path, index), table, check(spec_type, name, model)


def _naming_key(raw: Mapping[str, Any], where: Path) -> str:
    """The key that names the part, as the file has it."""
    if where == ("flow",):
        return "recipe"
    return "name" if where[0] == "datasets" and "type" not in raw["datasets"][where[1]] else "type"


def _neighbours(path: FilePath) -> str:
    folder = path.parent
    return nearest(path.name, [each.name for each in folder.glob("*.toml")]) if folder.is_dir() else ""
