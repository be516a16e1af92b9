"""Columns of a frame: chosen by name or pattern, as numbers, as labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from tzk_core.domain import Interval
from tzk_core.errors import Note, TzkError, nearest

FINE = 1e5
"""So many deviations from 0 a column may lie: beyond that, rounding in single precision has a part in its density."""


def chosen(patterns: Iterable[str], columns: Sequence[str], where: str) -> list[str]:
    """The columns that patterns match, in the order of the patterns, once each.

    Args:
        patterns: names, or globs such as "mean *".

    Raises:
        TzkError: for a pattern that matches none.
    """
    names: list[str] = []
    for pattern in patterns:
        matches = [pattern] if pattern in columns else [name for name in columns if fnmatchcase(name, pattern)]
        if not matches:
            listed = nearest(pattern, columns) or f" (there are {', '.join(map(repr, columns[:12]))})"
            raise TzkError(f"{where}: no column is called, or matches, {pattern!r}{listed}")
        names += matches
    return list(dict.fromkeys(names))


def numeric(frame: pd.DataFrame) -> list[str]:
    """The columns of numbers; truth values are none."""
    return [
        name
        for name in frame.columns
        if pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
    ]


def numbers(column: pd.Series, where: str) -> np.ndarray:
    """A column as float64, (n,), nan where a value is missing.

    Raises:
        TzkError: for a value that is no number, or too large for single precision.
    """
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    lost = np.isnan(values) & column.notna().to_numpy()
    if lost.any():
        row = int(lost.argmax())
        raise TzkError(f"{where}: expected numbers, or nothing where missing; got {column.iloc[row]!r} in row {row}")
    with np.errstate(over="ignore"):
        large = np.isinf(values.astype(np.float32))
    if large.any():
        row = int(large.argmax())
        raise TzkError(f"{where}: expected finite numbers below 3.4e38; got {values[row]:g} in row {row}")
    return values


def labels(column: pd.Series) -> np.ndarray:
    """A column as text, (n,), "" where a value is missing.

    Whole numbers are written without a point.
    """
    if pd.api.types.is_float_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if (np.isnan(values) | (values == np.round(values))).all():
            column = column.astype("Int64")
    return np.array(["" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)])


def check_density(values: np.ndarray, where: str) -> None:
    """Check that a training column has a density that single precision can hold.

    The column is of the training split.

    A column that lies far from 0 for its deviation, such as a year in seconds, gets a `Note`.

    Raises:
        TzkError: for a column that is constant or missing everywhere.
    """
    seen = values[~np.isnan(values)]
    if not len(seen):
        raise TzkError(f"{where}: it has no value in the training split: leave it out of `columns`")
    deviation, largest = seen.std(), np.abs(seen).max()
    if deviation <= 1e-9 * largest:
        raise TzkError(
            f"{where}: it is {seen[0]:g} in all {len(seen)} training samples, so that it has no density: leave it out "
            "of `columns`"
        )
    if largest > FINE * deviation:
        warnings.warn(
            f"{where}: values up to {largest:g} with a deviation of {deviation:g} lose digits in single precision: "
            "subtract a constant",
            Note,
            stacklevel=2,
        )


def check_domain(values: np.ndarray, within: Interval, where: str) -> None:
    """Check that a column is within an open interval.

    Raises:
        TzkError: with the first value that is not.
    """
    outside = (values <= within.low) | (values >= within.high)
    if outside.any():
        row = int(outside.argmax())
        raise TzkError(
            f"{where}: its domain is ({within.low:g}, {within.high:g}), without its ends; got {values[row]:g} in row "
            f"{row}: correct `domain`"
        )
