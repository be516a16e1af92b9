"""Conditions on samples, by data set and label columns, as [[knowledge]] tables write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError, nearest
from tzk_core.settings.knowledge import Condition as WrittenCondition
from tzk_core.settings.knowledge import every

EACH = "each"
"""In place of a value: one knowledge type for each value of the column."""

DATASET = "dataset"
"""The key of a condition that names data sets; all other keys are label columns."""

Condition = dict[str, tuple[str, ...]]
"""The values that match, by label column or `DATASET`; an empty condition matches no sample."""


def checked_condition(written: WrittenCondition, data: Mapping[str, Samples], *, where: str) -> Condition:
    """A condition as a table has it, checked against the data.

    Args:
        data: samples by data set.
        where: the place in the config, with which messages begin.

    Raises:
        TzkError: for an unknown data set, column or value.
    """
    condition = {column: every(values) for column, values in written.items()}
    for name in condition.get(DATASET, ()):
        if name not in data:
            raise TzkError(f"{where}: no data set '{name}': there is {listed(data)}{nearest(name, list(data))}")
    eligible = {name: data[name] for name in condition.get(DATASET, data)}
    for column, values in condition.items():
        if column != DATASET:
            _check_values(column, values, eligible, where=where)
    return condition


def matching(condition: Condition, dataset: str, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Where the condition holds, and where an unknown label decides, (n,) bool each."""
    possible = np.full(len(samples), bool(condition))
    known = np.ones(len(samples), dtype=bool)
    for column, values in condition.items():
        if column == DATASET:
            possible &= dataset in values
        elif column not in samples.labels:
            possible &= False
        else:
            number_of, numbers = samples.coded[column]
            empty = numbers == number_of.get("", -1)
            known &= ~empty
            possible &= np.isin(numbers, [number_of[value] for value in values if value in number_of]) | empty
    return possible & known, possible & ~known


def values_of(column: str, data: Mapping[str, Samples]) -> tuple[str, ...]:
    """The values of a label column that occur in these samples, in natural order."""
    labels = [samples.labels[column] for samples in data.values() if column in samples.labels]
    return tuple(sorted(set(np.concatenate(labels).tolist()) - {""}, key=natural_key))


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names in quotes, at most so many, for a message."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) > most:
        quoted = [*quoted[:most], f"{len(quoted) - most} more"]
    return ", ".join(quoted) if quoted else "none"


def _check_values(column: str, values: Sequence[str], data: Mapping[str, Samples], *, where: str) -> None:
    """Check that a label column exists, and that each value occurs in it."""
    columns = sorted({column for samples in data.values() for column in samples.labels})
    if column not in columns:
        raise TzkError(
            f"{where}: no label column '{column}' in {listed(data)}: "
            f"there is {listed(columns)}{nearest(column, columns)}"
        )
    if tuple(values) == (EACH,):
        return
    occurring = values_of(column, data)
    for value in values:
        if value not in occurring:
            raise TzkError(
                f"{where}: no sample of {listed(data)} has {column} = '{value}': "
                f"there is {listed(occurring)}{nearest(value, occurring)}"
            )
