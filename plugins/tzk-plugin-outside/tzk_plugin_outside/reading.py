"""Observations from files outside of any data set: images, or an array, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tzk_core.config import Config, DatasetTable
from tzk_core.data.images import SUFFIXES, read_image
from tzk_core.data.listing import image_names_below
from tzk_core.data.npz import ObservationFile, open_observations
from tzk_core.data.protocol import Dataset, Unread
from tzk_core.errors import TzkError, nearest
from tzk_core.plugins import Dataset as DatasetSpec
from tzk_core.plugins import registry
from tzk_core.world import ALONE, World

BATCH = 256
"""How many observations are read, scored and in memory together."""

_COLOUR_OF = {1: "grey", 3: "rgb"}


class Guessed(Unread):
    """A data set that is gone, with the grey levels of its config.

    Nothing recorded what they were.
    """


@dataclass(frozen=True)
class Read:
    """Observations and their sources.

    T: (n, *shape), uint8 grey levels or floating point.
    files: (n,), the file of each.
    rows: (n,), the position in the array T of its file; None for an image.
    first: the position of the first one in all that is read, counting files that were left out.
    unreadable: by file that was left out, the reason.
    """

    T: Tensor
    files: Sequence[Path]
    rows: Sequence[int | None]
    first: int = 0
    unreadable: Mapping[Path, str] = field(default_factory=dict)

    def without_T(self) -> Read:
        """The same of no pixels, for those who have scored them."""
        return replace(self, T=self.T[:0])


@dataclass(frozen=True)
class Source:
    """An image, the images of a folder, or the array T of an npz file.

    Images are converted as the images of the data sets are: in colour or grey, padded, resized or inverted by their
    `prepare`. An npz file has T as the model sees it, (n, *shape): uint8 grey levels, or floating point in the model's
    scale, to which no noise is added.

    files: their paths, as text: that is all that is held of each of many images until it is read.
    """

    files: Sequence[str]
    datasets: Mapping[str, Dataset]
    array: ObservationFile | None = None
    folder: Path | None = None

    @property
    def levels(self) -> int | None:
        """The grey levels of what is read; None where it is real-valued."""
        first = next(iter(self.datasets.values()))
        if isinstance(first, Guessed) and self.array is not None and not self.array.is_grey:
            return None  # the data that would tell are gone: what has no grey levels is taken for real-valued
        return first.levels

    @property
    def count(self) -> int:
        """The number of batches."""
        observations = len(self.files) if self.array is None else self.array.array.shape[0]
        return math.ceil(observations / BATCH)

    def batches(self, world: World = ALONE) -> Iterator[Read]:
        """Read what is there in batches of `BATCH` files or rows.

        A batch has less where some cannot be read.

        Args:
            world: of whose processes each reads some batches, in turn; all are to have the same files.

        Raises:
            TzkError: for an image by itself that cannot be read.
        """
        if self.array is not None:
            yield from _batches_of(self.array, world)
            return
        for number in range(world.rank, self.count, world.size):
            yield self._images(BATCH * number)

    def _images(self, first: int) -> Read:
        """The batch of images that begins at this file."""
        images: dict[Path, Tensor] = {}
        unreadable: dict[Path, str] = {}
        for file in map(Path, self.files[first : first + BATCH]):
            try:
                images[file] = _read_image(file, self.datasets)
            except TzkError as error:
                if self.folder is None:
                    raise
                unreadable[file] = str(error)
        shape, _ = _expected(self.datasets)
        T = torch.stack(list(images.values())) if images else torch.zeros(0, *shape)
        return Read(T, list(images), [None] * len(images), first, unreadable)

    def check_some(self, unreadable: Mapping[Path, str]) -> None:
        """Check that not all files were left out.

        Raises:
            TzkError: if they were, with the reason of the first.
        """
        if len(unreadable) == len(self.files):
            first = next(iter(unreadable.values()))
            raise TzkError(f"none of the {len(self.files)} images in {self.folder} can be scored; the first: {first}")


def source_of(path: Path, datasets: Mapping[str, Dataset], like: str | None = None) -> Source:
    """The observations at `path`, checked as far as that takes no image.

    Of an array, all of it is checked.

    Args:
        like: the data set to follow; with None, all that can read an image have to agree on it.

    Raises:
        TzkError: if `path` is no image, no folder of images and no npz file, and for an array that is not finite or not
            of the model's shape.
    """
    followed = _followed(datasets, like)
    if not path.exists():
        raise TzkError(f"there is no {path}: expected an image, a folder of images, or an npz file with an array T")
    if path.is_dir():
        if not (files := image_names_below(path)):
            raise TzkError(f"no images in {path}: expected names that end in {' '.join(SUFFIXES)}")
        return Source(files, followed, folder=path)
    if path.suffix.lower() == ".npz":
        array = open_observations(path, *_expected(followed))
        for _ in array.parts(BATCH):
            pass  # what is damaged or not finite is refused before anything is scored
        return Source([str(path)], followed, array)
    if path.suffix.lower() not in SUFFIXES:
        raise TzkError(
            f"{path} is expected to be an image ({' '.join(SUFFIXES)}), a folder of images, or an npz file with an "
            "array T"
        )
    return Source([str(path)], followed)


def read_all(path: Path, datasets: Mapping[str, Dataset], like: str | None = None) -> Read:
    """All that `path` holds, in memory at once.

    Raises:
        TzkError: as `source_of` and reading do, and for a folder without an image that can be read.
    """
    source = source_of(path, datasets, like)
    batches = list(source.batches())
    unreadable = {file: reason for batch in batches for file, reason in batch.unreadable.items()}
    source.check_some(unreadable)
    return Read(
        torch.cat([batch.T for batch in batches if len(batch.T)]),
        [file for batch in batches for file in batch.files],
        [row for batch in batches for row in batch.rows],
        unreadable=unreadable,
    )


def readers_of(
    config: Config, shape: tuple[int, ...], observations: Mapping[str, Any] | None = None
) -> dict[str, Dataset]:
    """The data sets of a config, for reading files.

    `Unread` takes the place of one whose data, or whose plugin, are gone.

    Args:
        observations: what run.json has of the observations that the model was trained on, their `levels` among it.
    """
    readers: dict[str, Dataset] = {}
    for table in config.datasets:
        dataset_type: Any = None
        try:
            dataset_type = registry().find(DatasetSpec, table.type).load()
            readers[table.name] = dataset_type(**table.arguments)
        except Exception as error:  # a plugin raises what it likes where its files are gone
            reason = str(error) if isinstance(error, TzkError) else f"{type(error).__name__}: {error}"
            unread = getattr(dataset_type, "unread", None)
            gone: Any = _gone(table, shape, reason, observations=observations)
            readers[table.name] = unread(shape, **table.arguments) if unread else gone
    return readers


def _gone(
    table: DatasetTable, shape: tuple[int, ...], reason: str, *, observations: Mapping[str, Any] | None
) -> Unread:
    if observations is None:
        return Guessed(table.name, shape, reason, levels=table.arguments.get("levels", 256))
    return Unread(table.name, shape, reason, levels=observations["levels"])


def _batches_of(array: ObservationFile, world: World) -> Iterator[Read]:
    """This process's batches of an array, which can only be read in order."""
    start = 0
    for number, T in enumerate(array.parts(BATCH)):
        if number % world.size == world.rank:
            yield Read(T, [array.file] * len(T), range(start, start + len(T)), start)
        start += len(T)


def _read_image(file: Path, datasets: Mapping[str, Dataset]) -> Tensor:
    """Read an image as the data sets do.

    Raises:
        TzkError: if no data set can read it, or if they differ.
    """
    shape, levels = _expected(datasets)
    if len(shape) != 3 or shape[0] not in _COLOUR_OF or levels is None:
        nature = "real-valued" if levels is None else "no images"
        raise TzkError(f"{file} is an image; this model's data are {nature}, of shape {shape}: give T in an npz file")
    images: dict[str, Tensor] = {}
    refusals = []
    for name, dataset in datasets.items():
        try:
            image = read_image(file, _COLOUR_OF[shape[0]], "score", ground=getattr(dataset, "ground", "white"))
            images[name] = _prepared(image, dataset, file)
        except TzkError as error:
            refusals.append(str(error))
    if not images:
        raise TzkError("; ".join(dict.fromkeys(refusals)))
    (first, T), *others = images.items()
    for name, other in others:
        if not torch.equal(T, other):
            raise TzkError(f"{file} is another image to data set {first!r} than to {name!r}: say which with --like")
    return T


def _prepared(image: Tensor, dataset: Dataset, file: Path) -> Tensor:
    if hasattr(dataset, "prepare"):
        image = dataset.prepare(image, str(file))
    if tuple(image.shape) != tuple(dataset.shape):
        raise TzkError(
            f"{dataset.name}: {file} is {image.shape[2]} x {image.shape[1]} pixels, "
            f"expected {dataset.shape[2]} x {dataset.shape[1]}"
        )
    return image


def _followed(datasets: Mapping[str, Dataset], like: str | None) -> Mapping[str, Dataset]:
    if like is None:
        return datasets
    if like not in datasets:
        known = nearest(like, datasets) or f" (there is {', '.join(datasets)})"
        raise TzkError(f"this run has no data set {like!r}{known}")
    return {like: datasets[like]}


def _expected(datasets: Mapping[str, Dataset]) -> tuple[tuple[int, ...], int | None]:
    """Shape and grey levels, common to the data sets of a run."""
    first = next(iter(datasets.values()))
    return tuple(first.shape), first.levels
