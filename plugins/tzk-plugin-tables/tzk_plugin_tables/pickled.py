"""Numbers of a pandas frame in a pickle, read without running any of its code.

A pickle names the functions that rebuild an object, so that loading one from elsewhere may run anything. Here the names
of pandas stand for inert records of their arguments, those of numpy for arrays of numbers and text, and any other is
refused. The columns are then read from the records, in the layout of pandas before 2 and since.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tzk_core.errors import TzkError
from tzk_core.files import check_regular, shown_path

_CONVERT = "write it as parquet where it comes from, and put that in its place"


class Record:
    """An object of pandas that was not made: its arguments and its state.

    args: what its class or function would have been called with.
    state: what it would have been given afterwards; None for nothing.
    """

    args: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *args: Any) -> Record:
        self = super().__new__(cls)
        self.args = args
        return self

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _text(value: Any, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them in older protocols."""
    if encoding not in ("latin1", "latin-1") or not isinstance(value, str):
        raise TzkError(f"expected text in latin1; got {type(value).__name__} in {encoding!r}")
    return value.encode("latin1")


def _empty(cls: type, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """The array that a state then fills; numpy itself asks for one of length 0."""
    if cls is not np.ndarray or shape != (0,):
        raise TzkError(f"expected an empty array; got {cls.__name__} of shape {shape}")
    return np.empty(0, dtype=np.uint8)


def _from_buffer(buffer: Any, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:  # noqa: PLR0917  pickle calls it by position
    """An array of protocol 5; numpy refuses one of objects."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


_MODULES = ("numpy", *(f"numpy.{core}.{module}" for core in ("core", "_core") for module in ("multiarray", "numeric")))
_NUMPY: Mapping[str, Any] = {
    "_reconstruct": _empty,
    "_frombuffer": _from_buffer,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_OTHERS: Mapping[tuple[str, str], Any] = {
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
    ("_codecs", "encode"): _text,
}


class _Inert(pickle.Unpickler):
    """Finds nothing but numpy's arrays, slices, and records in the place of pandas."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if module in _MODULES and name in _NUMPY:
            return _NUMPY[name]
        if module.split(".")[0] == "pandas":
            return Record
        if (module, name) in _OTHERS:
            return _OTHERS[module, name]
        raise TzkError(f"it asks for {module}.{name}, which no table of numbers needs")


def read_pickled_frame(path: Path) -> pd.DataFrame:
    """The columns of numbers of a pickled pandas frame, in their order.

    Raises:
        TzkError: for a pickle that asks for anything but arrays, or is no frame of numbers.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            return _frame(_Inert(file, encoding="latin1").load())
    except Exception as error:  # a damaged pickle raises whatever it likes
        reason = str(error) if isinstance(error, TzkError) else f"{type(error).__name__}: {error}"
        raise TzkError(f"cannot read {shown_path(path)} as a pickled table of numbers ({reason}): {_CONVERT}") from None


def _frame(pickled: Any) -> pd.DataFrame:
    names, blocks = _managed(_manager(pickled))
    columns: dict[int, np.ndarray] = {}
    for values, places in blocks:
        if isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "fiu":
            columns |= dict(zip(_positions(places), values, strict=True))
    if not columns:
        raise TzkError("it has no columns of numbers")
    return pd.DataFrame({names[place]: columns[place] for place in sorted(columns)})


def _manager(pickled: Any) -> Record:
    """What holds the axes and blocks of the frame."""
    if isinstance(pickled, Record) and isinstance(pickled.state, dict):
        inner = pickled.state.get("_mgr", pickled.state.get("_data"))
        if isinstance(inner, Record):
            return inner
    raise TzkError("it is no pandas frame")


def _managed(manager: Record) -> tuple[list[str], list[tuple[Any, Any]]]:
    """Names of the columns; by block values, (columns, rows), and places of columns."""
    if isinstance(manager.state, tuple):  # before pandas 2: axes, two lists of the first layout, and the second layout
        layout = manager.state[3]["0.14.1"]
        return _names(layout["axes"][0]), [(block["values"], block["mgr_locs"]) for block in layout["blocks"]]
    blocks, axes = manager.args
    return _names(axes[0]), [(block.args[0], block.args[1]) for block in blocks]


def _names(index: Any) -> list[str]:
    """The names of the columns, from an index made of its class and data."""
    if isinstance(index, Record) and len(index.args) == 2 and isinstance(index.args[1], dict):
        data = index.args[1].get("data")
        if isinstance(data, np.ndarray | list):
            return [str(name) for name in data]
    raise TzkError("the names of its columns are of an unknown form")


def _positions(places: Any) -> list[int]:
    while isinstance(places, Record):
        (places,) = places.args
    if isinstance(places, slice):
        step = places.step or 1
        return list(range(places.start or 0, places.stop, step))
    return [int(place) for place in places]
