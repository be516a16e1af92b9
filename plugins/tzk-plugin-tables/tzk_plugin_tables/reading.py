"""Frames from files of tables, through pandas."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from tzk_core.errors import TzkError
from tzk_core.files import check_regular, shown_path

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".feather", ".arrow")


def suffix_of(path: Path) -> str:
    """The one of `SUFFIXES` that a file has; "" for another file."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def read_frame(path: Path, *, separator: str, text: Collection[str]) -> pd.DataFrame:
    """Read a table.

    Args:
        separator: of the columns of a csv file; "" for that of its suffix.
        text: columns, by name or glob, that are read from a csv file as they are written, so that "007" stays that.

    Raises:
        TzkError: for a file that cannot be read, or columns of one name.
    """
    suffix = suffix_of(path)
    if not suffix:
        raise TzkError(f"table: {shown_path(path)}: expected a file that ends in {', '.join(SUFFIXES)}")
    check_regular(path)
    try:
        if suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif suffix in (".feather", ".arrow"):
            frame = pd.read_feather(path)
        else:
            frame = _read_text(path, separator or ("\t" if suffix.startswith(".tsv") else ","), text)
    except Exception as error:  # pandas and pyarrow raise whatever they like
        raise TzkError(f"table: cannot read {shown_path(path)} ({type(error).__name__}: {error})") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise TzkError(f"table: {shown_path(path)} has several columns called {twice[0]!r}: rename all but one")
    return frame


def _read_text(path: Path, separator: str, text: Collection[str]) -> pd.DataFrame:
    """A csv file, its columns called as in its first line.

    pandas by itself renames one that occurs twice.
    """
    first = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, skipinitialspace=True)
    names = [str(name).strip() for name in first.iloc[0]]
    types = {i: str for i, name in enumerate(names) if any(fnmatchcase(name, glob) for glob in text)}
    frame = pd.read_csv(path, sep=separator, header=None, skiprows=1, dtype=types, skipinitialspace=True)
    return frame.set_axis(names, axis=1)
