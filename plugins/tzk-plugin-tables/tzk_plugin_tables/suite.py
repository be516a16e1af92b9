"""The published tables that flows are compared on (Papamakarios et al. 2017).

POWER, GAS, HEPMASS, MINIBOONE and BSDS300 are read from the published files (Zenodo, record 1161203) and prepared by
the published code: the same rows in the same splits, noise and standardisation. What is unusual there is kept.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch

from tzk_core.data.protocol import SPLITS, Samples, check_split
from tzk_core.data.root import data_root
from tzk_core.errors import Note, TzkError
from tzk_core.files import check_regular, shown_path
from tzk_plugin_tables.pickled import read_pickled_frame
from tzk_plugin_tables.reading import read_frame


class Parts(NamedTuple):
    """Rows of the three splits, (n, dims) each."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Published:
    """A table of the suite: T is one row, standardised as published.

        [[datasets]]
        name = "power"

    Args:
        root: the folder that has those of the archive (`power`, `gas`, ...) or its `data`; by default `TZK_DATA`.

    Raises:
        TzkError: for a file that is missing or of another form.
    """

    name: ClassVar[str]
    dims: ClassVar[int]
    levels: int | None = None

    def __init__(self, *, root: str | Path | None = None) -> None:
        folder = data_root(root)
        self._folders = [folder, folder / "data"]
        parts = self._read()
        widths = {part.shape[1:] for part in parts}
        if len(widths) > 1 or parts.train.ndim != 2 or not all(len(part) for part in parts):
            shapes = ", ".join(f"{split} {part.shape}" for split, part in zip(SPLITS, parts, strict=True))
            raise TzkError(f"{self.name}: expected splits of the same columns, each with rows; got {shapes}")
        self._splits = {
            split: torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))
            for split, part in zip(SPLITS, parts, strict=True)
        }
        self.shape: tuple[int, ...] = tuple(parts.train.shape[1:])
        self.original_dims: int | None = self.shape[0]
        if self.shape != (self.dims,):
            text = f"{self.name}: the published table has {self.dims} columns; these files give {self.shape[0]}"
            warnings.warn(text, Note, stacklevel=3)

    def split(self, split: str) -> Samples:
        """`Samples` of "train", "validation" or "test"."""
        check_split(split)
        return Samples(self._splits[split].clone())

    def _read(self) -> Parts:
        raise NotImplementedError

    def _file(self, *names: str) -> Path:
        """The first of these files, below `root`, that exists."""
        for name in names:
            for folder in self._folders:
                if (folder / name).exists():
                    check_regular(folder / name)
                    return folder / name
        raise TzkError(
            f"{self.name}: there is no {self._folders[0] / names[0]}: unpack data.tar.gz of Zenodo's record 1161203 "
            "there, or set TZK_DATA to the folder that has it"
        )

    def _array(self, name: str) -> np.ndarray:
        """An array of a npy file, (n, columns), in float64."""
        file = self._file(name)
        try:
            array = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TzkError(f"{self.name}: cannot read {shown_path(file)} ({error}): copy it again") from error
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise TzkError(f"{self.name}: {shown_path(file)}: expected a table of numbers; got {array.shape}")
        return np.asarray(array, dtype=np.float64)


class Power(Published):
    """Electric power of a household by the minute: 6 columns of 8.

    Noise is spread over the resolution of most. Shuffle and noise are of numpy's `RandomState(42)`, as published.
    """

    name = "power"
    dims = 6

    def _read(self) -> Parts:
        data = self._array("power/data.npy")
        if data.shape[1] != 8:
            raise TzkError(f"power: expected power/data.npy with 8 columns; got {data.shape[1]}")
        random = np.random.RandomState(42)
        random.shuffle(data)
        data = np.delete(data, [1, 3], axis=1)  # reactive power and global intensity
        count = len(data)
        voltage = 0.01 * random.rand(count, 1)
        active = 0.001 * random.rand(count, 1)
        meters = random.rand(count, 3)
        noise = np.hstack([active, voltage, meters, np.zeros((count, 1))])
        return standardised(last_tenths(data + noise))


class Gas(Published):
    """Gas sensors in mixtures of ethylene and CO: 8 columns of 16.

    Of two sensors that correlate by more than 0.98 the first goes, until none do. All rows, those of the test too, set
    the standardisation, as published. A converted `gas/ethylene_CO.parquet` is read before the pickle. Of that only
    numbers are taken, and none of its code is run.
    """

    name = "gas"
    dims = 8

    def _read(self) -> Parts:
        converted = [f"gas/ethylene_CO{suffix}" for suffix in (".parquet", ".feather", ".csv")]
        try:
            file = self._file(*converted)
        except TzkError:
            file = self._file("gas/ethylene_CO.pickle")
            frame = read_pickled_frame(file)
        else:
            frame = read_frame(file, separator="", text=())
        if missing := [name for name in ("Meth", "Eth", "Time") if name not in frame.columns]:
            raise TzkError(f"gas: {shown_path(file)} has no column {missing[0]!r}: expected the published table")
        frame = _without_repeats(frame.drop(columns=["Meth", "Eth", "Time"]))
        return last_tenths(((frame - frame.mean()) / frame.std()).to_numpy())


class Hepmass(Published):
    """Collisions with a new particle: 21 features of 28, class 1 alone.

    Moments are those of training and validation rows. A feature goes if its smallest value occurs more than 5 times, as
    published; the text of the paper says any value.
    """

    name = "hepmass"
    dims = 21

    def _read(self) -> Parts:
        train, test = (self._signal(f"hepmass/1000_{split}.csv") for split in ("train", "test"))
        test = test.iloc[:, :-1]  # its rows have one value more than its header
        if train.shape[1] != test.shape[1]:
            raise TzkError(f"hepmass: expected one column more in the test file; got {train.shape[1]} to train")
        mean, deviation = train.mean().to_numpy(), train.std().to_numpy()
        rows, tests = ((frame.to_numpy() - mean) / deviation for frame in (train, test))
        kept = (rows == rows.min(0)).sum(0) <= 5
        count = len(rows) // 10
        return Parts(rows[:-count, kept], rows[-count:, kept], tests[:, kept])

    def _signal(self, name: str) -> pd.DataFrame:
        """The rows of class 1, without the class."""
        file = self._file(name)
        try:
            frame = pd.read_csv(file, index_col=False)
        except (OSError, ValueError) as error:
            raise TzkError(f"hepmass: cannot read {shown_path(file)} ({error}): copy it again") from error
        return frame[frame.iloc[:, 0] == 1].iloc[:, 1:]


class Miniboone(Published):
    """Neutrinos of MiniBooNE: 43 features. The published file is cleaned already."""

    name = "miniboone"
    dims = 43

    def _read(self) -> Parts:
        return standardised(last_tenths(self._array("miniboone/data.npy")))


class Bsds300(Published):
    """Patches of 8×8 pixels of natural images, without their mean and last pixel: 63 dimensions.

    The published file has its three splits, prepared. Reading it needs h5py.
    """

    name = "bsds300"
    dims = 63

    def _read(self) -> Parts:
        file = self._file("BSDS300/BSDS300.hdf5")
        try:
            import h5py
        except ImportError as missing:
            raise TzkError("bsds300: reading hdf5 needs h5py: pip install h5py") from missing
        try:
            with h5py.File(file, "r") as arrays:
                return Parts(*(np.asarray(arrays[split]) for split in SPLITS))
        except (OSError, KeyError) as error:
            raise TzkError(
                f"bsds300: cannot read {shown_path(file)} ({error}): expected {', '.join(SPLITS)}"
            ) from error


def last_tenths(rows: np.ndarray) -> Parts:
    """The last tenth is the test split, that of the rest the validation split."""
    test = len(rows) // 10
    if test == 0:
        raise TzkError(f"expected at least 12 rows to split; got {len(rows)}")
    rest = rows[:-test]
    validation = max(1, len(rest) // 10)
    return Parts(rest[:-validation], rest[-validation:], rows[-test:])


def standardised(parts: Parts) -> Parts:
    """All splits by mean and deviation of training and validation rows together."""
    rows = np.vstack(parts[:2])
    mean, deviation = rows.mean(0), rows.std(0)
    return Parts(*((part - mean) / deviation for part in parts))


def _without_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop columns until no two correlate by more than 0.98."""
    while True:
        repeats = (frame.corr() > 0.98).to_numpy().sum(1) > 1
        if not repeats.any():
            return frame
        frame = frame.drop(columns=frame.columns[int(repeats.argmax())])
