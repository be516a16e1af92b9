"""The protocol of data sets: observations, label columns and characteristics, split by split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor, as_tensor

from tzk_core.errors import TzkError, nearest
from tzk_core.names import column_problem

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Samples:
    """One split of a data set, in memory.

    T: (n, *shape), uint8 grey levels, or float32 where the data set's `levels` is None.
    labels: (n,) arrays of str, by column; the empty string means that the label is not known.
    characteristics: (n,) float32, by name; nan means that the value is not known.

    Raises:
        TzkError: if a column is not as long as T, or has a name that no column can have.
    """

    T: Tensor
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    characteristics: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {f"label column '{name}'": column.shape for name, column in self.labels.items()}
        shapes |= {f"characteristic '{name}'": column.shape for name, column in self.characteristics.items()}
        for name in (*self.labels, *self.characteristics):
            if message := column_problem(name):
                raise TzkError(f"the column {name!r} cannot be called so: {message}")
        for name, shape in shapes.items():
            if tuple(shape) != (len(self.T),):
                raise TzkError(
                    f"{name}: expected one value for each of the {len(self.T)} samples, "
                    f"shape ({len(self.T)},); got shape {tuple(shape)}"
                )

    def __len__(self) -> int:
        return len(self.T)

    @cached_property
    def coded(self) -> dict[str, tuple[dict[str, int], np.ndarray]]:
        """Numbers of values, and of all samples, (n,), by label column.

        Comparing numbers is faster than comparing text, as a thousand knowledge types do.
        """
        coded = {}
        for name, column in self.labels.items():
            values, numbers = np.unique(column, return_inverse=True)
            coded[name] = ({str(value): number for number, value in enumerate(values)}, numbers)
        return coded

    def take(self, index: np.ndarray | Tensor | Sequence[int]) -> Samples:
        """Copy the samples at these positions, (m,) integers, in this order."""
        positions = np.asarray(index, dtype=np.int64)
        rows = as_tensor(positions)
        return Samples(
            T=self.T[rows],
            labels={name: column[positions] for name, column in self.labels.items()},
            characteristics={name: column[rows] for name, column in self.characteristics.items()},
        )


@runtime_checkable
class Dataset(Protocol):
    """A source of observations of one fixed shape.

    A registered data set MUST have these attributes and `split`. Its constructor takes keyword arguments that TOML can
    write, all with defaults. With the same arguments it MUST return the same samples in the same order, on any file
    system.

    name: for readers.
    shape: of one observation; images are (channels, height, width).
    levels: the number of grey levels of uint8 data (256), or None for real-valued data.
    original_dims: the dimensions of an observation before padding (784 for MNIST padded to 32x32). Without padding it
        is the product of `shape`. None for resized data, where bits per original pixel have no meaning.

    It CAN have `domain`, where real-valued data are not on the whole real line: an interval, or a list with one a
    dimension (`tzk_core.domain`). Recipes choose their first layer by it.

    It CAN have `columns`, the names of the dimensions of vectors, for pictures.

    It CAN have `prepare(image: Tensor, name: str) -> Tensor`, which converts an image from a file, uint8 (c, h, w), to
    what `split` returns, uint8 of `shape`. It raises a TzkError with `name` where that is impossible. Without it,
    images from outside have to be of `shape` already.
    """

    name: str
    shape: tuple[int, ...]
    levels: int | None
    original_dims: int | None

    def split(self, split: str) -> Samples:
        """The samples of "train", "validation" or "test".

        Raises:
            TzkError: for any other name.
        """
        ...


@dataclass(frozen=True)
class Unread:
    """A stand-in for a data set whose data are gone.

    Arrays of the model's shape can still be read. A data set whose `prepare` needs no data CAN have a class method
    `unread(shape, **arguments)`, which returns an object with `prepare` and these attributes.

    reason: the message of the error of reading the data.
    """

    name: str
    shape: tuple[int, ...]
    reason: str
    levels: int | None = 256
    original_dims: int | None = None

    def split(self, split: str) -> Samples:
        """Raise the error of reading the data."""
        raise TzkError(self.reason)

    def prepare(self, image: Tensor, name: str) -> Tensor:
        """Raise TzkError, since it is not known how the data set reads an image."""
        raise TzkError(f"{name} cannot be read as data set {self.name!r} reads images: {self.reason}")


def check_split(split: str) -> None:
    """Check that `split` is one of `SPLITS`.

    Raises:
        TzkError: if it is not.
    """
    if split not in SPLITS:
        raise TzkError(f"no split '{split}': expected 'train', 'validation' or 'test'{nearest(split, SPLITS)}")
