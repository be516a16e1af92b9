"""Metrics: further tables of results, from the model and a scored split.

This is what a plugin's metric has to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch

from tzk_core.errors import TzkError
from tzk_core.evaluation.likelihood import EvaluationSplit, Scores
from tzk_core.model import TzK
from tzk_core.random_streams import seeded

Better = Literal["higher", "lower", ""]


class Column(NamedTuple):
    """A column of numbers.

    unit: such as "bits/dim" or "share". better: which direction is better, if any.
    """

    name: str
    unit: str
    better: Better = ""


@dataclass(frozen=True)
class Evaluated:
    """One split of one data set, with what was computed of it.

    scores: log p(T), log p(T given κ=1) and log p(κ=1 given T) of its samples, in nats; `scores.held_out` has the
        samples themselves, dequantised, with presence and characteristics.
    partitions: those that partition this data set, by title the logarithms of their weights by knowledge type; their
        members are scored on all samples.
    importance_samples, seed: as for the likelihoods.
    """

    model: TzK
    scores: Scores
    partitions: Mapping[str, Mapping[str, float]]
    importance_samples: int
    seed: int = 0

    @property
    def held_out(self) -> EvaluationSplit:
        return self.scores.held_out


class Metric(Protocol):
    """A further table of results.

    A registered metric is a class. A config gives the arguments of its constructor. It MUST have `columns` and `rows`,
    and MUST NOT change the model. What is random in it comes from torch's generator, which is seeded by the config.

    columns: of numbers, in their order; they may be settled by the constructor.
    """

    @property
    def columns(self) -> Sequence[Column]: ...

    def rows(self, evaluated: Evaluated) -> Iterable[Mapping[str, float | str | None]]:
        """Rows for one split.

        They have numbers by the names of columns, None for one without, and texts by any other key.
        """
        ...


@dataclass(frozen=True)
class AskedMetric:
    """A metric that a config asks for, and who offers it.

    make: its constructor, with its arguments.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    arguments: Mapping[str, Any]
    make: Callable[[], Metric]

    def measured(self, splits: Sequence[Evaluated]) -> dict[str, Any]:
        """The metric's entry in results.json.

        It has who offers it, arguments, columns and rows, or the error that it raised.
        """
        entry: dict[str, Any] = {
            "name": self.name,
            "plugin": self.plugin,
            "distribution": self.distribution,
            "version": self.version,
            "arguments": dict(self.arguments),
            "columns": [],
            "rows": [],
        }
        try:
            with torch.no_grad(), seeded(splits[0].seed, "metric", self.name):
                metric = self.make()
                columns = _checked_columns(metric)
                rows = [row for split in splits for row in measured_rows(metric, columns, split)]
        except (Exception, SystemExit) as error:  # a plugin raises what it likes; all other results are written
            return entry | {"error": f"{type(error).__name__}: {error}"}
        return entry | {"columns": [column._asdict() for column in columns], "rows": rows}

    def note(self, entry: Mapping[str, Any]) -> str:
        """The note for a reader on a metric that failed; "" if it did not."""
        if "error" not in entry:
            return ""
        source = f"plugin {self.plugin!r}, {self.distribution} {self.version}".rstrip()
        return f"The metric {self.name!r} ({source}) failed, and all else was evaluated: {entry['error']}."


def measured_rows(metric: Metric, columns: Sequence[Column], evaluated: Evaluated) -> list[dict[str, Any]]:
    """The rows of a metric for one split, with "dataset" and "split" in front.

    Raises:
        TzkError: for a row that is none.
    """
    held_out, names = evaluated.held_out, [column.name for column in columns]
    rows = metric.rows(evaluated)
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise TzkError(f"rows is expected to return several mappings; got {type(rows).__name__}")
    return [{"dataset": held_out.dataset, "split": held_out.split, **_checked_row(row, names)} for row in rows]


def _checked_columns(metric: Metric) -> tuple[Column, ...]:
    columns = tuple(metric.columns)
    for column in columns:
        if not isinstance(column, Column) or column.better not in ("higher", "lower", ""):
            raise TzkError(f'columns are expected as Column(name, unit, "higher" or "lower" or ""); got {column!r}')
    if len({column.name for column in columns}) < len(columns) or not columns:
        raise TzkError(f"columns are expected to be some, of different names; got {[c.name for c in columns]}")
    return columns


def _checked_row(row: Any, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise TzkError(f"a row is expected as a mapping; got {type(row).__name__}")
    for key, value in row.items():
        is_number = value is None or isinstance(value, int | float) and not isinstance(value, bool)
        if key in names and not is_number:
            raise TzkError(f"column {key!r}: a number or None is expected; got {type(value).__name__}")
        if key not in names and not isinstance(value, str):
            raise TzkError(f"{key!r} is no column, so that text is expected; got {type(value).__name__}")
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
