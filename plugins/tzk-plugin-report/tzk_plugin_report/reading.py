"""The files of a run, as its report reads them; nothing here imports torch."""

from __future__ import annotations

import csv
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.files import check_regular
from tzk_core.runs.folder import RunFolder

Columns = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        config: the tables of config.toml.
        record: run.json; empty without one.
        results: results.json; empty while there is none.
        columns: of metrics.csv by name, in order of step, None where nothing was logged; empty without the file.
        comparison: of `tzk add`, everything older before and after: a header and rows; None in other runs.
        addition: the spec of `tzk add`, resolved; {} in other runs.
    """

    path: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    results: Mapping[str, Any]
    columns: Columns
    comparison: Mapping[str, Any] | None = None
    addition: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = field(init=False)
    knowledge: Sequence[Mapping[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", self.results.get("rows", ()))
        object.__setattr__(self, "knowledge", self.results.get("knowledge", ()))

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.path.resolve().name)

    @property
    def parent(self) -> str:
        """The name of the run that this was made from."""
        return str((self.record.get("lineage") or [{}])[-1].get("run", "another run"))

    @property
    def datasets(self) -> list[str]:
        """The names of the data sets, in the order of the config."""
        return [str(table.get("name", table.get("type"))) for table in self.config.get("datasets", ())]

    def rows_of(self, dataset: str, *kinds: str) -> list[Mapping[str, Any]]:
        """Likelihood rows of a data set, of these kinds or of all."""
        return [row for row in self.rows if row.get("dataset") == dataset and (not kinds or row["kind"] in kinds)]


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        TzkError: if it is none, and for files that cannot be read.
    """
    folder = RunFolder.open(path)
    metrics = path / "metrics.csv"
    return Run(
        path=path,
        config=_toml(folder.config),
        record=folder.read_record(),
        results=_results(folder.results),
        columns=read_columns(metrics) if metrics.exists() else {},
        comparison=_json(path / "before-after.json"),
        addition=_tables(path / "addition.toml") if (path / "addition.toml").exists() else {},
    )


def read_columns(path: Path) -> Columns:
    """The columns of metrics.csv, in order of step.

    Of a step logged twice, the last row counts.

    Raises:
        TzkError: if there is no column `step`.
    """
    check_regular(path)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        if "step" not in names:
            raise TzkError(f"{path}: expected a column 'step'; got {', '.join(names) or 'no columns'}")
        rows = {step: row for row in reader if (step := _number(row.get("step"))) is not None}
    return {name: [_number(rows[step].get(name)) for step in sorted(rows)] for name in names}


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:  # a row that was cut off while being written
        return None
    return value if math.isfinite(value) else None


def _tables(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, of which data sets and knowledge are lists."""
    check_regular(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TzkError(f"{path} cannot be read: {error}") from None
    _check_lists(tables, path, ("datasets", "knowledge"))
    return tables


def _toml(path: Path) -> dict[str, Any]:
    tables = _tables(path)
    if not tables.get("datasets"):
        raise TzkError(f"{path} has no [[datasets]], as the config of a run has: it was cut off or altered")
    return tables


def _check_lists(tables: Mapping[str, Any], path: Path, keys: Sequence[str]) -> None:
    """Raise `TzkError` where a key holds anything but a list of tables."""
    for key in keys:
        value = tables.get(key, [])
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise TzkError(f"{path} is damaged: {key} is expected to be a list of tables")


def _results(path: Path) -> dict[str, Any]:
    """The tables of results.json, {} without it; each row says its kind."""
    results = _json(path) or {}
    _check_lists(results, path, ("rows", "knowledge", "classification"))
    if not all(isinstance(row.get("kind"), str) for row in results.get("rows", ())):
        raise TzkError(f"{path} is damaged: a row does not say its kind")
    return results


def _json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None without the file."""
    if not path.exists():
        return None
    check_regular(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TzkError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise TzkError(f"{path}: expected a JSON object; got {type(value).__name__}")
    return value
