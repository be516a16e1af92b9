"""A user's own arrays, of any fixed shape, in npz files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tzk_core.data.packed import UNREADABLE, PackedArray, open_arrays, read_arrays
from tzk_core.data.protocol import SPLITS, Samples, check_split
from tzk_core.data.root import existing
from tzk_core.data.splits import divide
from tzk_core.domain import REAL, interval
from tzk_core.errors import TzkError, nearest
from tzk_core.names import column_problem

LABELS, CHARACTERISTICS = "labels.", "characteristics."
EXPECTED = "T, labels.NAME and characteristics.NAME"


class Npz:
    """Arrays of one fixed shape, with labels and characteristics, as `numpy.savez` writes them.

    A file has these arrays, and no others:

        T                       (n, *shape), uint8 grey levels or floating point
        labels.NAME             (n,), text or integers; "" where the label is not known
        characteristics.NAME    (n,), numbers; nan where the value is not known

        numpy.savez("mine.npz", **{"T": T, "labels.species": species, "characteristics.mass": masses})

    Args:
        path: an npz file, or a folder with train.npz (and perhaps validation.npz and test.npz), as written or else
            below `TZK_DATA`.
        levels: the number of grey levels if T is uint8 (0 .. levels - 1).
        domain: the interval that floating-point T is in, such as "(0, inf)", where it is not the whole real line.
        validation, test: the numbers of samples to cut from the training samples by `seed`, if there is no file for
            them; by default a tenth each.

    Raises:
        TzkError: with file and array; everything is read and checked at once.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        levels: int = 256,
        *,
        validation: int | None = None,
        test: int | None = None,
        seed: int = 0,
        domain: str = REAL,
    ) -> None:
        interval(domain)
        if not 2 <= levels <= 256:
            raise TzkError(f"npz: levels = {levels}, expected 2 to 256")
        source = existing(path, "npz")
        self.name = source.stem
        self._supplied = {supplied: _read(file, levels) for supplied, file in _files(source).items()}
        self._divided = divide(
            {supplied: len(samples) for supplied, samples in self._supplied.items()},
            validation=validation,
            test=test,
            seed=seed,
            name="npz",
        )
        train = self._supplied["train"]
        for supplied, samples in self._supplied.items():
            if _format_of(samples) != _format_of(train):
                raise TzkError(
                    f"npz: {source}: {supplied}.npz does not fit train.npz: "
                    f"expected {_format_of(train)}; got {_format_of(samples)}"
                )
        self.shape: tuple[int, ...] = tuple(train.T.shape[1:])
        self.levels: int | None = levels if train.T.dtype == torch.uint8 else None
        self.original_dims: int | None = math.prod(self.shape)
        self.domain = domain

    def split(self, split: str) -> Samples:
        """`Samples` of "train", "validation" or "test"."""
        check_split(split)
        supplied, rows = self._divided[split]
        return self._supplied[supplied].take(rows)


def _files(source: Path) -> dict[str, Path]:
    if not source.is_dir():
        return {"train": source}
    files = {split: source / f"{split}.npz" for split in SPLITS if (source / f"{split}.npz").is_file()}
    if "train" not in files:
        raise TzkError(f"npz: there is no {source / 'train.npz'}: put it there, or give a file as `path`")
    return files


@dataclass(frozen=True)
class ObservationFile:
    """The array T of an npz file, which is read part by part.

    is_grey: whether it is uint8, and not floating point.
    """

    file: Path
    array: PackedArray
    levels: int | None

    @property
    def is_grey(self) -> bool:
        return self.array.dtype == np.uint8

    def parts(self, size: int) -> Iterator[torch.Tensor]:
        """T, at most `size` rows at a time, (m, *shape), uint8 below `levels` or float32.

        Raises:
            TzkError: where a part is damaged, or holds nan, infinity or a grey level that there is not.
        """
        first = 0
        with _readable(self.file):
            for T in self.array.parts(size):
                yield torch.from_numpy(_observations(T, self.levels or 256, f"npz: {self.file}: T", first=first))
                first += len(T)


def open_observations(file: Path, shape: tuple[int, ...], levels: int | None) -> ObservationFile:
    """Open the array T of an npz file, (n, *shape); other arrays are ignored.

    Raises:
        TzkError: if the file is unreadable or has no T, or T has another shape or type.
    """
    with _readable(file):
        arrays = open_arrays(file)
    if "T" not in arrays:
        raise TzkError(f"npz: {file} has no array T, has {', '.join(arrays) or 'none'}: write it as T=...")
    T = arrays["T"]
    if len(T.shape) != len(shape) + 1 or T.shape[1:] != shape or not T.shape[0]:
        expected = ", ".join(map(str, ("n", *shape)))
        raise TzkError(f"npz: {file}: T: expected shape ({expected}), n at least 1; got {T.shape}")
    if levels is None and T.dtype == np.uint8:
        raise TzkError(f"npz: {file}: T: expected floating point, as the data of this model are; got uint8")
    return ObservationFile(file, T, levels)


def _read(file: Path, levels: int) -> Samples:
    arrays = _arrays(file)
    if "T" not in arrays:
        raise TzkError(f"npz: {file} has no array T, has {', '.join(arrays) or 'none'}; expected {EXPECTED}")
    T = _observations(arrays.pop("T"), levels, f"npz: {file}: T")
    labels, characteristics = {}, {}
    for name, array in arrays.items():
        where = f"npz: {file}: {name}"
        if wrong := column_problem(name.partition(".")[2]) if name.startswith((LABELS, CHARACTERISTICS)) else "":
            raise TzkError(f"{where}: {wrong}")
        if array.shape != (len(T),):
            raise TzkError(f"{where}: expected shape ({len(T)},), one value a sample of T; got {array.shape}")
        if name.startswith(LABELS):
            labels[name.removeprefix(LABELS)] = _column_of_text(array, where)
        elif name.startswith(CHARACTERISTICS):
            characteristics[name.removeprefix(CHARACTERISTICS)] = _column_of_numbers(array, where)
        else:
            known = ["T", *(prefix + name.rpartition(".")[2] for prefix in (LABELS, CHARACTERISTICS))]
            raise TzkError(f"{where}: unknown array; expected {EXPECTED}{nearest(name, known)}")
    return Samples(torch.from_numpy(T), labels, characteristics)


def _arrays(file: Path) -> dict[str, np.ndarray]:
    with _readable(file):
        return read_arrays(file)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Damage of a file as a sentence."""
    try:
        yield
    except UNREADABLE as error:
        raise TzkError(
            f"npz: cannot read {file} ({error}): write it with numpy.savez and arrays of numbers or text"
        ) from error


def _observations(T: np.ndarray, levels: int, where: str, *, first: int = 0) -> np.ndarray:
    """Grey levels as they are, all others as float32.

    Args:
        first: the number of the first sample, for errors.
    """
    if T.ndim < 2 or 0 in T.shape:
        raise TzkError(f"{where}: expected shape (n, *shape), none of it 0; got {T.shape}")
    if T.dtype == np.uint8:
        if T.max() >= levels:
            raise TzkError(f"{where}: expected grey levels below {levels}; got {T.max()}: correct `levels`")
        return T
    if not np.issubdtype(T.dtype, np.floating):
        raise TzkError(f"{where}: expected uint8 grey levels or floating point; got {T.dtype}: convert it")
    with np.errstate(over="ignore"):
        result = T.astype(np.float32)
    if not np.isfinite(result).all():
        row = int(np.flatnonzero(~np.isfinite(result).reshape(len(T), -1).all(axis=1))[0])
        raise TzkError(
            f"{where}: expected finite numbers; got {_too_large(T[row]) or 'nan or infinity'}, first in sample "
            f"{first + row}"
        )
    return result


def _column_of_text(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise TzkError(f"{where}: expected text in UTF-8; got bytes that are none ({error.reason})") from None
    if array.dtype.kind not in "Uiub":
        raise TzkError(f"{where}: expected text or integers; got {array.dtype}: convert it")
    return array.astype(np.str_)


def _column_of_numbers(array: np.ndarray, where: str) -> torch.Tensor:
    if array.dtype.kind not in "fiub":
        raise TzkError(f"{where}: expected numbers; got {array.dtype}: convert it")
    if np.isinf(array).any():
        raise TzkError(f"{where}: expected finite numbers, or nan where not known; got infinity")
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    if np.isinf(result).any():
        raise TzkError(
            f"{where}: expected finite numbers; got {_too_large(array[np.isinf(result)])}, first in sample "
            f"{int(np.isinf(result).argmax())}: scale them"
        )
    return torch.from_numpy(result)


def _too_large(values: np.ndarray) -> str:
    """Describe a number that overflows in single precision; "" if none does."""
    with np.errstate(over="ignore"):
        lost = np.isfinite(values) & ~np.isfinite(values.astype(np.float32))
    return f"{values[lost].flat[0]:g}, more than single precision holds (3.4e38)" if lost.any() else ""


def _format_of(samples: Samples) -> str:
    """The format that all files of one data set have in common, in words."""
    columns = [LABELS + name for name in sorted(samples.labels)]
    columns += [CHARACTERISTICS + name for name in sorted(samples.characteristics)]
    return f"T of {samples.T.dtype}, shape {tuple(samples.T.shape[1:])}; {', '.join(columns) or 'no columns'}"
