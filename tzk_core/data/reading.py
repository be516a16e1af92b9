"""Observations from files outside of any data set: images, or an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tzk_core.data.images import SUFFIXES, read_image
from tzk_core.data.listing import images_below
from tzk_core.data.npz import read_observations
from tzk_core.data.protocol import Dataset
from tzk_core.errors import TzkError, nearest

_COLOUR_OF = {1: "grey", 3: "rgb"}


@dataclass(frozen=True)
class Read:
    """Observations and their sources.

    T: (n, *shape), uint8 grey levels or floating point.
    files: (n,), the file of each.
    rows: (n,), the position in the array T of its file; None for an image.
    unreadable: by file that is left out, the reason.
    """

    T: Tensor
    files: Sequence[Path]
    rows: Sequence[int | None]
    unreadable: Mapping[Path, str] = field(default_factory=dict)


def read_all(path: Path, datasets: Mapping[str, Dataset], like: str | None = None) -> Read:
    """Read an image, a folder of images, or the array T of an npz file.

    Images are converted as the images of the data sets are: in colour or grey, padded, resized or inverted by their
    `prepare`. An unreadable file of a folder is left out and listed in `unreadable`. An npz file has T as the model
    sees it, (n, *shape): uint8 grey levels, or floating point in the model's scale, to which no noise is added.

    Args:
        like: the data set to follow; with None, all that can read an image have to agree on it.

    Raises:
        TzkError: if nothing can be read, if `path` is a file but no image, and for an array that is not finite or not
            of the model's shape.
    """
    followed = _followed(datasets, like)
    if not path.exists():
        raise TzkError(f"there is no {path}: expected an image, a folder of images, or an npz file with an array T")
    if path.is_dir():
        return _read_folder(path, followed)
    if path.suffix.lower() == ".npz":
        T = read_observations(path, *_expected(followed))
        return Read(T, [path] * len(T), range(len(T)))
    if path.suffix.lower() not in SUFFIXES:
        raise TzkError(
            f"{path} is expected to be an image ({' '.join(SUFFIXES)}), a folder of images, or an npz file with an "
            "array T"
        )
    return Read(_read_image(path, followed)[None], [path], [None])


def _read_folder(path: Path, datasets: Mapping[str, Dataset]) -> Read:
    files = images_below(path)
    if not files:
        raise TzkError(f"no images in {path}: expected names that end in {' '.join(SUFFIXES)}")
    images, unreadable = {}, {}
    for file in files:
        try:
            images[file] = _read_image(file, datasets)
        except TzkError as error:
            unreadable[file] = str(error)
    if not images:
        first = next(iter(unreadable.values()))
        raise TzkError(f"none of the {len(files)} images in {path} can be scored; the first: {first}")
    return Read(torch.stack(list(images.values())), list(images), [None] * len(images), unreadable)


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
