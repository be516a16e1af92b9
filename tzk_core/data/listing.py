"""Images below a folder, and the splits and labels that its subfolders are."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path, PurePath

from tzk_core.data.images import SUFFIXES
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import SPLITS
from tzk_core.errors import Note, TzkError, nearest

_SPLIT_OF = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""Names of folders of splits, in any case."""

_LIKE_SPLITS = frozenset(
    ["training", "trainset", "traindata", "testing", "testset", "testdata", "tests", "valid", "valset", "validate"]
    + ["validating", "dev", "eval", "evaluation", "holdout", "held-out"]
)
"""Names that others give folders of splits. Two of them are hardly two labels."""

OTHER_SUFFIXES = frozenset(
    [".apng", ".avif", ".dcm", ".dib", ".eps", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl", ".pbm"]
    + [".pcx", ".pnm", ".psd", ".svg", ".tga", ".xbm", ".cr2", ".dng", ".nef"]
)
"""Suffixes of images that are not read."""


def images_below(folder: Path) -> list[Path]:
    """List the files below a folder that have names of images, in natural order.

    Links are followed, and hidden files are ignored. A note says how many images of other formats are left out.

    Raises:
        TzkError: for an unreadable folder, a broken link, or a link to a folder above itself.
    """
    return list(map(Path, image_names_below(folder)))


def image_names_below(folder: Path) -> list[str]:
    """The same as text, which takes a quarter of the memory."""
    files: list[str] = []
    others: Counter[str] = Counter()
    _collect(folder, (folder.resolve(),), files, others=others)
    if others:
        found = ", ".join(f"{count} of {suffix}" for suffix, count in sorted(others.items()))
        warnings.warn(
            f"{folder} has images that are not read ({found}), expected names that end in {' '.join(SUFFIXES)}: "
            "convert them, or they are left out",
            Note,
            stacklevel=3,
        )
    return files


def supplied_splits(folder: Path, *, splits: bool | None) -> dict[str, tuple[Path, list[Path]]]:
    """Folder and images of each supplied split: "train", and perhaps others.

    Args:
        splits: whether the subfolders are splits; None decides by their names, of which all or none are those of
            splits.

    Raises:
        TzkError: for a split without images, and where names do not decide.
    """
    named = _named_as_splits(folder) if splits is not False else {}
    if splits and "train" not in named.values():
        raise TzkError(f"folder: splits = true, but {folder} has no folder train")
    if not named:
        return {"train": (folder, _images(folder))}
    _check_all_are_splits(folder, named)
    supplied = {split: (folder / name, _images(folder / name)) for name, split in named.items()}
    return {split: supplied[split] for split in SPLITS if split in supplied}


def labels_without_images(base: Path, images: list[Path]) -> list[str]:
    """Subfolders of `base` without any image below them; hidden ones are ignored."""
    with_images = {file.relative_to(base).parts[0] for file in images if file.parent != base}
    return [entry.name for entry in _subfolders(base) if entry.name not in with_images]


def _collect(folder: Path, above: tuple[Path, ...], files: list[str], *, others: Counter[str]) -> None:
    """Append the images below a folder, in natural order.

    Images of other formats are counted by suffix in `others`. `above` are the folders that lead there.
    """
    names, folders, links = _entries(folder)
    for name in names:
        if name in links and not (folder / name).exists():
            path = folder / name
            raise TzkError(f"{path} is a link that leads nowhere ({os.readlink(path)}): correct or remove it")
        if name in folders:
            real = (folder / name).resolve()
            if real in above:
                raise TzkError(f"{folder / name} is a link to a folder above it ({real}), without end: remove it")
            _collect(folder / name, (*above, real), files, others=others)
            continue
        suffix = PurePath(name).suffix.lower()
        if suffix in SUFFIXES:
            files.append(os.path.join(folder, name))
        elif suffix in OTHER_SUFFIXES:
            others[suffix] += 1


def _entries(folder: Path) -> tuple[list[str], set[str], set[str]]:
    """Names in a folder that are not hidden, in natural order.

    Beside them, those of folders and of links among them.
    """
    names, folders, links = [], set(), set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                names.append(entry.name)
                if entry.is_symlink():
                    links.add(entry.name)
                if entry.is_dir():
                    folders.add(entry.name)
    except OSError as error:
        raise TzkError(f"the folder {folder} cannot be read: {error.strerror}") from None
    return sorted(names, key=natural_key), folders, links


def _named_as_splits(folder: Path) -> dict[str, str]:
    """Splits by name of subfolder, where that is the name of one."""
    names = [entry.name for entry in _subfolders(folder)]
    like = [name for name in names if name.casefold() in _LIKE_SPLITS]
    if len(like) > 1:
        raise TzkError(
            f"folder: {folder} has {' and '.join(like)}, which look like splits and would be labels: call them "
            f"{', '.join(SPLITS)}, or say splits = false if they are labels"
        )
    named = {name: _SPLIT_OF[name.casefold()] for name in names if name.casefold() in _SPLIT_OF}
    for split in SPLITS:
        if len(twice := [name for name, other in named.items() if other == split]) > 1:
            raise TzkError(f"folder: {folder} has {' and '.join(twice)}, which both stand for the {split} split")
    return named


def _check_all_are_splits(folder: Path, named: dict[str, str]) -> None:
    """Check that a folder of splits has a training split, and nothing else."""
    if "train" not in named.values():
        raise TzkError(
            f"folder: {folder} has a folder {' and '.join(named)} but no folder train: put the training images into "
            f"{folder / 'train'}, or say splits = false if its subfolders are labels"
        )
    others = [entry.name for entry in _subfolders(folder) if entry.name not in named]
    loose = [file.name for file in _files(folder) if file.suffix.lower() in SUFFIXES]
    if others or loose:
        what = ", ".join([*others, *(f"{len(loose)} images" for _ in loose[:1])])
        known = nearest(others[0], SPLITS) if others else ""
        raise TzkError(
            f"folder: {folder} has {', '.join(named)}, as splits are called, beside {what}: say splits = false if "
            f"all of its subfolders are labels, or keep nothing else beside the splits{known}"
        )


def _images(folder: Path) -> list[Path]:
    """The images below a folder, of which there has to be one."""
    images = images_below(folder)
    if not images:
        raise TzkError(f"folder: no images in {folder}: expected names that end in {' '.join(SUFFIXES)}")
    return images


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def _files(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if not entry.is_dir()]


def _visible(folder: Path) -> list[Path]:
    """Entries of a folder that are not hidden, in order of name."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise TzkError(f"the folder {folder} cannot be read: {error.strerror}") from None
