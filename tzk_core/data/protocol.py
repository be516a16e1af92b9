"""What a data set gives: observations, named label columns and named characteristics, split by split."""

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

    T: `(n, *shape)`, uint8 grey levels, or float32 where the data set's `levels` is None.
    labels: column name -> `(n,)` array of str; the empty string means that the label is not known.
    characteristics: name -> `(n,)` float32; nan means that the value is not known.

    Raises TzkError if a column is not as long as T.
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
        """Column name -> the number of each value that occurs, and of each sample, `(n,)`: a thousand knowledge types
        are sooner told by numbers than by text."""
        found = {}
        for name, column in self.labels.items():
            values, numbers = np.unique(column, return_inverse=True)
            found[name] = ({str(value): number for number, value in enumerate(values)}, numbers)
        return found

    def take(self, index: np.ndarray | Tensor | Sequence[int]) -> Samples:
        """The samples at these positions, `(m,)` integers, in their order; copies."""
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

    A class that is registered as a data set MUST have these attributes and `split`; its constructor takes
    keyword arguments that TOML can write, all with defaults. It MUST give the same samples in the same order
    whenever it is built with the same arguments, on any file system.

    name: what the data set is called where a person reads it.
    shape: of one observation; images are (channels, height, width).
    levels: number of grey levels of uint8 data (256), or None for real-valued data.
    original_dims: dimensions of an observation before padding (784 for MNIST padded to 32x32), the product of
        `shape` where nothing was padded, None where the data was resized so that bits per original pixel have
        no meaning.

    It CAN have `prepare(image: Tensor, name: str) -> Tensor`, which takes an image as a file has it, uint8
    (c, h, w), to what `split` gives, uint8 of `shape`, and raises TzkError, calling it `name`, where that cannot
    be. Without it images from outside have to be of `shape` already.
    """

    name: str
    shape: tuple[int, ...]
    levels: int | None
    original_dims: int | None

    def split(self, split: str) -> Samples:
        """The samples of "train", "validation" or "test"; TzkError for any other name."""
        ...


@dataclass(frozen=True)
class Unread:
    """A data set whose data are gone, in the place of which arrays of the model's shape can still be read.

    A class of data sets whose `prepare` needs no data CAN have a class method `unread(shape, **arguments)` that gives
    an object with `prepare` and these attributes.
    """

    name: str
    shape: tuple[int, ...]
    reason: str
    levels: int | None = 256
    original_dims: int | None = None

    def split(self, split: str) -> Samples:
        """Raises the TzkError that reading the data did."""
        raise TzkError(self.reason)

    def prepare(self, image: Tensor, name: str) -> Tensor:
        """Raises TzkError: nobody knows how the data set reads an image."""
        raise TzkError(f"{name} cannot be read as data set {self.name!r} reads images: {self.reason}")


def check_split(split: str) -> None:
    """Raise TzkError unless `split` is one of SPLITS."""
    if split not in SPLITS:
        raise TzkError(
            f"no split '{split}': expected 'train', 'validation' or 'test'{nearest(split, SPLITS)}"
        )
