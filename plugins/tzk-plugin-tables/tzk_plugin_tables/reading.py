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
            separator = separator or ("\t" if suffix.startswith(".tsv") else ",")
            header = pd.read_csv(path, sep=separator, nrows=0).columns
            types = {name: str for name in header if any(fnmatchcase(str(name).strip(), glob) for glob in text)}
            frame = pd.read_csv(path, sep=separator, dtype=types, skipinitialspace=True)
    except Exception as error:  # pandas and pyarrow raise whatever they like
        raise TzkError(f"table: cannot read {shown_path(path)} ({type(error).__name__}: {error})") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise TzkError(f"table: {shown_path(path)} has several columns called {twice[0]!r}: rename all but one")
    return frame
