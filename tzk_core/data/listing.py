"""The images below a folder, and which splits and labels its subfolders are: nothing is left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

from tzk_core.data.images import SUFFIXES
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import SPLITS
from tzk_core.errors import TzkError, nearest

_SPLIT_OF = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""What a folder of a split may be called, whatever its case."""


def images_below(folder: Path) -> list[Path]:
    """The files below a folder whose names are those of images, in natural order; hidden ones are left alone.

    Links are followed. Raises TzkError for a folder that cannot be read, a link that leads nowhere, or one that leads
    to a folder above itself.
    """
    images: list[Path] = []
    _collect(folder, (folder.resolve(),), images)
    return sorted(images, key=lambda file: [natural_key(part) for part in file.relative_to(folder).parts])


def parts_of(folder: Path, splits: bool | None) -> dict[str, tuple[Path, list[Path]]]:
    """For each part that a folder brings ("train", and maybe others): its folder, and the images below it.

    splits: whether the subfolders are splits; None goes by their names, which are then all of splits, or none is.
    Raises TzkError for a part without images, and where it cannot tell which of the two is meant.
    """
    named = _named_as_splits(folder) if splits is not False else {}
    if splits and "train" not in named.values():
        raise TzkError(f"folder: splits = true, but {folder} has no folder train")
    if not named:
        return {"train": (folder, _some(folder))}
    _check_all_are_splits(folder, named)
    parts = {split: (folder / name, _some(folder / name)) for name, split in named.items()}
    return {split: parts[split] for split in SPLITS if split in parts}


def labels_without_images(base: Path, images: list[Path]) -> list[str]:
    """The subfolders of `base` that have no image anywhere below them, hidden ones left alone."""
    with_images = {file.relative_to(base).parts[0] for file in images if file.parent != base}
    return [each.name for each in _subfolders(base) if each.name not in with_images]


def _collect(folder: Path, above: tuple[Path, ...], images: list[Path]) -> None:
    """Appends the images below a folder; `above` are the folders that one came through, links resolved."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise TzkError(f"the folder {folder} cannot be read: {error.strerror}") from None
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and not path.exists():
            raise TzkError(f"{path} is a link that leads nowhere ({os.readlink(path)}): correct or remove it")
        if entry.is_dir():
            real = path.resolve()
            if real in above:
                raise TzkError(f"{path} is a link to a folder above it ({real}), without end: remove it")
            _collect(path, (*above, real), images)
        elif path.suffix.lower() in SUFFIXES:
            images.append(path)


def _named_as_splits(folder: Path) -> dict[str, str]:
    """The subfolders that are called as splits are, and which."""
    found = {each.name: _SPLIT_OF[each.name.casefold()] for each in _subfolders(folder) if _is_split(each.name)}
    for split in SPLITS:
        if len(twice := [name for name, its in found.items() if its == split]) > 1:
            raise TzkError(f"folder: {folder} has {' and '.join(twice)}, which both stand for the {split} split")
    return found


def _is_split(name: str) -> bool:
    return name.casefold() in _SPLIT_OF


def _check_all_are_splits(folder: Path, named: dict[str, str]) -> None:
    """Raises TzkError where a folder of splits holds anything else, or no training split."""
    if "train" not in named.values():
        raise TzkError(
            f"folder: {folder} has a folder {' and '.join(named)} but no folder train: put the training images into "
            f"{folder / 'train'}, or say splits = false if its subfolders are labels"
        )
    others = [each.name for each in _subfolders(folder) if each.name not in named]
    loose = [file.name for file in _files(folder) if file.suffix.lower() in SUFFIXES]
    if others or loose:
        what = ", ".join([*others, *(f"{len(loose)} images" for _ in loose[:1])])
        known = nearest(others[0], SPLITS) if others else ""
        raise TzkError(
            f"folder: {folder} has {', '.join(named)}, as splits are called, beside {what}: say splits = false if "
            f"all of its subfolders are labels, or keep nothing else beside the splits{known}"
        )


def _some(folder: Path) -> list[Path]:
    images = images_below(folder)
    if not images:
        raise TzkError(f"folder: no images in {folder}: expected names that end in {' '.join(SUFFIXES)}")
    return images


def _subfolders(folder: Path) -> list[Path]:
    return [each for each in _shown(folder) if each.is_dir()]


def _files(folder: Path) -> list[Path]:
    return [each for each in _shown(folder) if not each.is_dir()]


def _shown(folder: Path) -> list[Path]:
    """What is in a folder, hidden entries left alone, in the order of names."""
    try:
        return sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise TzkError(f"the folder {folder} cannot be read: {error.strerror}") from None
