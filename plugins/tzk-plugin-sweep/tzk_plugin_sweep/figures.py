"""Rows of results.json: of which quantity, data and units they are."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.files import check_regular
from tzk_core.report.table import DASH
from tzk_core.runs.folder import RunFolder

UNITS = {"bits_per_dim": "bits/dim", "bits_per_pixel": "bits/pixel", "log_prob_nats": "log p (nats)"}
"""The units of a row, each a column of its own."""

IDENTITY = ("dataset", "split", "kind", "name", "knowledge")
"""What two rows of one quantity have in common."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """A run with figures.

    results: results.json. config: config.toml. observations: of run.json; None where an older version wrote it.
    """

    path: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    observations: Any

    @property
    def rows(self) -> list[Row]:
        """Its own rows, without those that others have published."""
        return [row for row in self.results["rows"] if row["kind"] != "published"]


def evaluated(path: Path) -> Evaluated:
    """Read a run.

    Raises:
        TzkError: if it is none, was not evaluated, or cannot be read.
    """
    folder = RunFolder.open(path)
    if not folder.results.exists():
        raise TzkError(f"{path} has no results.json: it was not evaluated. To go on with it: tzk run {path} --resume")
    try:
        check_regular(folder.results)
        results = json.loads(folder.results.read_text(encoding="utf-8"))
        config = tomllib.loads(folder.config.read_text(encoding="utf-8"))
        list(map(identity, results["rows"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TzkError(f"{folder.results} cannot be read: {type(error).__name__}: {error}") from None
    return Evaluated(path, results, config, folder.read_record().get("observations"))


def identity(row: Row) -> tuple[Any, ...]:
    """Equal for rows of the same quantity."""
    return tuple(row[key] for key in IDENTITY)


def difference_of_data(first: Evaluated, other: Evaluated, *, dataset: str, split: str | None) -> str:
    """Why figures of two runs are not on the same samples; "" if they are.

    The noise in grey levels, and what a limit chooses, derive from the seed; the samples themselves do not.
    """
    if (reason := _configured(first, other, dataset)) or first.observations != other.observations:
        return reason or "the observations have another shape or other grey levels"
    counts = [_of(run, (dataset, split, "prior")) for run in (first, other)]
    if counts[0].get("count") != counts[1].get("count"):
        return f"{counts[1].get('count')} samples, not {counts[0].get('count')}"
    baselines = [_of(run, (dataset, split, "baseline")).get("bits_per_image") for run in (first, other)]
    return "the baseline, which no training changes, is another one" if baselines[0] != baselines[1] else ""


def _configured(first: Evaluated, other: Evaluated, dataset: str) -> str:
    """What configs say differently of the data that are evaluated."""
    tables = [_table(run.config, dataset) for run in (first, other)]
    differ = sorted(key for key in {**tables[0], **tables[1]} if tables[0].get(key) != tables[1].get(key))
    if differ:
        return f"the data set has another {', '.join(differ)}"
    evaluations = [run.config.get("evaluation", {}) for run in (first, other)]
    limits, draws = ([each.get(key) for each in evaluations] for key in ("limit", "dequantisations"))
    if limits[0] != limits[1]:
        return "evaluation.limit differs"
    if draws[0] != draws[1]:
        return "evaluation.dequantisations differs"
    same_seed = first.config.get("seed") == other.config.get("seed")
    return "" if same_seed or not limits[0] else "evaluation.limit chooses other samples by another seed"


def _table(config: Mapping[str, Any], dataset: str) -> Mapping[str, Any]:
    tables = config.get("datasets", ())
    return next((table for table in tables if table.get("name", table.get("type")) == dataset), {})


def _of(run: Evaluated, wanted: tuple[str, str | None, str]) -> Row:
    """The first row of a data set, split and kind."""
    return next((row for row in run.rows if (row["dataset"], row["split"], row["kind"]) == wanted), {})


def units_of(rows: Sequence[Row]) -> list[str]:
    """The units that some of these rows have, in order."""
    return [unit for unit in UNITS if any(row.get(unit) is not None for row in rows)]


def error_of(row: Row, unit: str) -> float | None:
    """The standard error of a row in a unit; results.json has bits per image."""
    error, bits, value = row.get("standard_error"), row.get("bits_per_image"), row.get(unit)
    if error is None or not bits or value is None:
        return None
    return abs(float(error) * float(value) / float(bits))


def decimals(value: float | None, error: float | None = None) -> str:
    """A figure, with its error behind it where there is one."""
    if value is None:
        return DASH
    return f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}")
