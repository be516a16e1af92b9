"""A table of real numbers as a data set: csv, parquet and feather."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tzk_core.data.protocol import SPLITS, Samples, check_split
from tzk_core.data.root import existing
from tzk_core.data.splits import divide
from tzk_core.domain import REAL, interval
from tzk_core.errors import TzkError
from tzk_plugin_tables import columns as of
from tzk_plugin_tables.reading import SUFFIXES, read_frame


class Table:
    """The rows of a table: some columns are T, others labels and characteristics.

    A missing number of T is nan, one of a characteristic is not known, and a missing label is "".

        [[datasets]]
        name = "cells"
        type = "table"
        path = "cells.csv"                  # relative to the config
        columns = ["mean *", "area"]
        labels = ["diagnosis"]
        domain = { area = "(0, inf)" }

    Args:
        path: a file of csv, tsv, parquet or feather, or a folder with train.csv (and perhaps validation.csv and
            test.csv), as written or else below `TZK_DATA`.
        columns: of T, by name or glob; by default all columns of numbers that are nothing else.
        labels: columns of text, by name or glob.
        characteristics: columns of numbers that knowledge types may observe as C; they may be columns of T, too.
        split: a column that says "train", "validation" or "test"; "" for none.
        validation, test: the numbers of samples to cut from the training samples by `seed`, where the data do not say
            them; by default a tenth each.
        domain: the interval that all columns of T are in, or a table by column or glob; the real line elsewhere. By it
            recipes choose their first layer.
        separator: of a csv file, where it is no comma.

    Raises:
        TzkError: with file and column; everything is read and checked at once.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        columns: list[str] | None = None,
        *,
        labels: list[str] | None = None,
        characteristics: list[str] | None = None,
        split: str = "",
        validation: int | None = None,
        test: int | None = None,
        seed: int = 0,
        domain: str | dict[str, str] = REAL,
        separator: str = "",
    ) -> None:
        source = existing(path, "table")
        self.name = source.stem
        self._where = f"table: {source.name}"
        frames = _frames(source, separator=separator, text=[*(labels or ()), *([split] if split else [])])
        train = frames["train"]
        self._labels = of.chosen(labels or (), list(train.columns), f"{self._where}: labels")
        self._characteristics = of.chosen(characteristics or (), list(train.columns), f"{self._where}: characteristics")
        self.columns = self._columns_of_T(train, columns, split)
        self._check_same(frames)
        if split:
            frames = self._by_column(frames, split)
        self._frames = frames
        counts = {name: len(frame) for name, frame in frames.items()}
        self._divided = divide(counts, validation=validation, test=test, seed=seed, name="table")
        self.shape: tuple[int, ...] = (len(self.columns),)
        self.levels: int | None = None
        self.original_dims: int | None = len(self.columns)
        self.domain = self._domains(domain)
        self._samples = {name: self._read(frame) for name, frame in frames.items()}
        self._check_columns()

    def split(self, split: str) -> Samples:
        """`Samples` of "train", "validation" or "test"."""
        check_split(split)
        supplied, rows = self._divided[split]
        return self._samples[supplied].take(rows)

    def _columns_of_T(self, frame: pd.DataFrame, patterns: list[str] | None, split: str) -> list[str]:
        if patterns is not None:
            names = of.chosen(patterns, list(frame.columns), f"{self._where}: columns")
            taken = [name for name in names if name in (*self._labels, split)]
            if taken:
                raise TzkError(f"{self._where}: {taken[0]!r} is a label or the split: take it out of `columns`")
        else:
            others = {*self._labels, *self._characteristics, split}
            names = [name for name in of.numeric(frame) if name not in others]
        if not names:
            raise TzkError(f"{self._where}: no column of numbers is left for T: name some in `columns`")
        return names

    def _check_same(self, frames: Mapping[str, pd.DataFrame]) -> None:
        wanted = [*self.columns, *self._labels, *self._characteristics]
        for name, frame in frames.items():
            if missing := [column for column in wanted if column not in frame.columns]:
                raise TzkError(f"{self._where}: {name} has no column {missing[0]!r}, which train has")

    def _by_column(self, frames: Mapping[str, pd.DataFrame], split: str) -> dict[str, pd.DataFrame]:
        if len(frames) > 1:
            raise TzkError(f"{self._where}: the folder has files for its splits: leave out split = {split!r}")
        frame = frames["train"]
        (column,) = of.chosen([split], list(frame.columns), f"{self._where}: split")
        values = of.labels(frame[column])
        wrong = sorted({*values.tolist()} - {*SPLITS})
        if wrong:
            raise TzkError(f"{self._where}: column {column!r} is expected to say {', '.join(SPLITS)}; got {wrong[0]!r}")
        return {name: frame[values == name].reset_index(drop=True) for name in SPLITS if (values == name).any()}

    def _domains(self, domain: str | dict[str, str]) -> str | list[str]:
        if isinstance(domain, str):
            interval(domain)
            return domain
        for pattern in domain:
            of.chosen([pattern], self.columns, f"{self._where}: domain")
        return [
            next((text for pattern, text in domain.items() if name == pattern or fnmatchcase(name, pattern)), REAL)
            for name in self.columns
        ]

    def _read(self, frame: pd.DataFrame) -> Samples:
        def numbers(name: str) -> np.ndarray:
            return of.numbers(frame[name], f"{self._where}: column {name!r}")

        T = np.stack([numbers(name) for name in self.columns], 1).astype(np.float32)
        return Samples(
            torch.from_numpy(np.ascontiguousarray(T)),
            {name: of.labels(frame[name]) for name in self._labels},
            {name: torch.from_numpy(numbers(name).astype(np.float32)) for name in self._characteristics},
        )

    def _check_columns(self) -> None:
        """Check that training columns have densities, and all values are in their domain."""
        train = self.split("train").T.double().numpy()
        domains = [self.domain] * len(self.columns) if isinstance(self.domain, str) else self.domain
        for position, (name, text) in enumerate(zip(self.columns, domains, strict=True)):
            where = f"{self._where}: column {name!r}"
            for samples in self._samples.values():
                of.check_domain(samples.T[:, position].double().numpy(), interval(text), where)
            of.check_density(train[:, position], where)


def _frames(source: Path, *, separator: str, text: list[str]) -> dict[str, pd.DataFrame]:
    """The frames of the splits that the data supply."""
    if not source.is_dir():
        return {"train": _filled(source, separator=separator, text=text)}
    files = {
        split: file
        for split in SPLITS
        for suffix in reversed(SUFFIXES)
        if (file := source / f"{split}{suffix}").is_file()
    }
    if "train" not in files:
        raise TzkError(f"table: there is no {source / 'train.csv'}: put it there, or give a file as `path`")
    return {split: _filled(file, separator=separator, text=text) for split, file in files.items()}


def _filled(file: Path, *, separator: str, text: list[str]) -> pd.DataFrame:
    frame = read_frame(file, separator=separator, text=text)
    if not len(frame):
        raise TzkError(f"table: {file} has no rows")
    return frame
