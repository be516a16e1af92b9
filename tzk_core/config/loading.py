"""From a TOML file and overrides to a checked `Config`, or to one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from tzk_core.config import toml
from tzk_core.config.keys import as_json, check_keys
from tzk_core.config.overrides import apply
from tzk_core.config.part_tables import check_parts, prepared_tables
from tzk_core.config.problems import ConfigError, Path, Problem, Problems
from tzk_core.config.rules import Base, Sections, broken_rules
from tzk_core.config.schema import (
    ADDITION_MODELS,
    MODELS,
    AdditionSpec,
    Config,
    DatasetTable,
    EvaluationTable,
    PublishedTable,
)
from tzk_core.config.watching import with_observers, without_absent
from tzk_core.errors import TzkError, nearest
from tzk_core.files import NotRegular, check_regular, shown_path
from tzk_core.plugins import (
    Registry,
    registry,
)
from tzk_core.renamed import MOVED, RENAMED, with_new_names
from tzk_core.settings import KnowledgeTable, ObjectiveTable, Table

LARGEST = 10_000_000
"""Bytes of a config; what is larger is some other file."""

DEEPEST = 50
TOO_DEEP = f"brackets are nested too deep to be read: expected at most {DEEPEST} within one another"

AnyTable = TypeVar("AnyTable", bound=Table)


def load_config(
    path: FilePath | str, overrides: Sequence[str] = (), *, observe: Sequence[str] = (), finished: bool = False
) -> Config:
    """Reads a config and checks all of it, the arguments of its parts included.

    `overrides` are texts such as "training.steps=100" or "datasets.mnist.size=32", put in before anything is
    checked. `observe` names observers beside those of the file. Of a `finished` run, observers and pictures that are
    not installed are left out. Raises ConfigError with every problem (file, table, key), and MissingPlugin where a
    plugin that the config asks for is not installed, since nothing else can be said before that.
    """
    tables = with_observers(read_toml(path), observe)
    return _checked(
        Config,
        MODELS,
        without_absent(tables, registry()) if finished else tables,
        source=str(path),
        overrides=overrides,
        folder=FilePath(path).parent,
    )


def load_run_config(path: FilePath | str) -> Config:
    """Read the config.toml of a run.

    What is not installed here is no error: tables of such parts stay as they are.
    """
    return _checked(Config, MODELS, read_toml(path), source=str(path), lenient=True, folder=FilePath(path).parent)


def load_addition(
    path: FilePath | str, base: Base, overrides: Sequence[str] = (), *, observe: Sequence[str] = ()
) -> AdditionSpec:
    """Read and check a spec of what is added to `base`; `observe` as of `load_config`."""
    return _checked(
        AdditionSpec,
        ADDITION_MODELS,
        with_observers(read_toml(path), observe),
        source=str(path),
        overrides=overrides,
        base=base,
        folder=FilePath(path).parent,
    )


def read_toml(path: FilePath | str) -> dict[str, Any]:
    """Read the tables of a TOML file, unchecked.

    Raises:
        ConfigError: if there is no such file, or it cannot be read.
    """
    path = FilePath(path)
    try:
        return toml.parse(_text(path))
    except NotRegular as error:
        raise ConfigError([Problem(str(path), "", f"expected a TOML file, got {error.kind}")]) from None
    except FileNotFoundError:
        raise ConfigError([Problem(str(path), "", f"no such file{_neighbours(path)}")]) from None
    except toml.TOMLDecodeError as error:
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
    finished: bool = False,
) -> Config:
    """Check tables as TOML has them, and return the config.

    Args:
        source: the name of the file in errors.
        parts: what to look parts up in, instead of the installed plugins.
        finished: as of `load_config`.
    """
    if finished:
        tables = without_absent(tables, parts or registry())
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
    prepared = prepared_tables(raw, models)
    check_keys(prepared, problems, models)
    check_parts(prepared, raw, problems, parts=parts, lenient=lenient, overridden=overridden, folder=folder)
    for where, message in broken_rules(_sections(prepared, problems, models, base=base)):
        problems.add(where, message)
    problems.check()
    return whole.model_validate_json(as_json(prepared), strict=True)


def _with_new_names(
    raw: Mapping[str, Any], overridden: Sequence[Path], source: str, *, warn: bool
) -> tuple[dict[str, Any], list[Path]]:
    """The tables, and the paths to what overrides set, with old names of keys replaced."""
    tables = dict(raw)
    for name in (RENAMED.keys() | MOVED.keys()) & raw.keys():
        if isinstance(raw[name], Mapping):
            try:
                tables[name] = with_new_names(raw[name], name, warn=warn)
            except TzkError as error:
                raise ConfigError([Problem(source, f"[{name}]", str(error))]) from None
    renamed: dict[Path, Path] = {
        (name, old): (name, new)
        for table in (RENAMED, MOVED)
        for name, keys in table.items()
        for old, new in keys.items()
    }
    return tables, [renamed.get(path, path) for path in overridden]


def _within(depth: int, value: Any) -> bool:
    """Whether tables and arrays are nested at most so deep."""
    if not isinstance(value, Mapping | list):
        return True
    inside = value.values() if isinstance(value, Mapping) else value
    return depth > 0 and all(_within(depth - 1, item) for item in inside)


def _sections(
    prepared: Mapping[str, Any],
    problems: Problems,
    models: Mapping[tuple[str, ...], type[Table]],
    *,
    base: Base | None,
) -> Sections:
    """The tables that are valid by themselves.

    The rules between them are then checked even beside faulty tables.
    """
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


def _neighbours(path: FilePath) -> str:
    folder = path.parent
    return nearest(path.name, [file.name for file in folder.glob("*.toml")]) if folder.is_dir() else ""
