"""A user's own images: a folder whose subfolders are labels."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tzk_core.data.images import COLOURS, SUFFIXES, open_image, read_image, resize
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import SPLITS, Samples, check_split
from tzk_core.data.root import existing
from tzk_core.data.splits import divide
from tzk_core.errors import TzkError, nearest


class Folder:
    """Images below a folder, in natural order of their paths.

    path: the folder; looked for as written, then below `TZK_DATA`. Either its subfolders are labels, or it
        has `train` (and maybe `validation` and `test`) whose subfolders are labels. Other files, and hidden
        ones, are left alone.
    size: resize to size x size (antialiased bilinear, whatever the proportions were); None keeps the images
        as they are, and they must then all have one size.
    colour: "grey", shape (1, h, w), or "rgb", shape (3, h, w). invert: make dark ink on light paper bright on
        dark.
    validation, test: how many images to cut from the training images by `seed`, if there is no folder for
        them; by default a tenth each.
    Label column `label`: the subfolder, with "/" between nested ones; no column if there are no subfolders.
    """

    levels: int | None = 256

    def __init__(
        self,
        path: str | Path | None = None,
        size: int | None = None,
        colour: str = "grey",
        invert: bool = False,
        validation: int | None = None,
        test: int | None = None,
        seed: int = 0,
    ) -> None:
        if colour not in COLOURS:
            raise TzkError(f"folder: colour = '{colour}', expected 'grey' or 'rgb'{nearest(colour, COLOURS)}")
        if size is not None and size < 1:
            raise TzkError(f"folder: size = {size}, expected the side of the images in pixels, at least 1")
        self.folder = existing(path, "folder")
        if not self.folder.is_dir():
            raise TzkError(f"folder: {self.folder} is not a folder; give the folder that has the images")
        self.name = self.folder.name
        self.size, self.colour, self.invert = size, colour, invert
        self._files = _files_by_part(self.folder)
        self._divided = divide(
            {part: len(files) for part, files in self._files.items()},
            validation,
            test,
            seed,
            "folder",
        )
        with open_image(self._first(), "folder") as image:
            width, height = image.size
        self.shape: tuple[int, ...] = (len(COLOURS[colour]), size or height, size or width)
        self.original_dims: int | None = math.prod(self.shape) if size is None else None

    def split(self, split: str) -> Samples:
        """`Samples` of "train", "validation" or "test"; TzkError names an image that does not fit."""
        check_split(split)
        part, rows = self._divided[split]
        files = [self._files[part][row] for row in rows]
        T = torch.empty(len(files), *self.shape, dtype=torch.uint8)
        for file, row in zip(files, T, strict=True):
            row.copy_(self._read(file))
        labels = [file.relative_to(self._base(part)).parent.as_posix() for file in files]
        named = {"label": np.array(["" if label == "." else label for label in labels], dtype=np.str_)}
        return Samples(T=T, labels=named if self._is_labelled() else {})

    def prepare(self, image: Tensor, name: str) -> Tensor:
        """An image as its file has it, uint8 (c, h, w), as `split` gives it; TzkError calls it `name`."""
        if self.size is not None:
            image = resize(image[None], self.size)[0]
        elif tuple(image.shape) != self.shape:
            raise TzkError(
                f"folder: {name} is {image.shape[2]} x {image.shape[1]} pixels, but {self._first()} is "
                f"{self.shape[2]} x {self.shape[1]}: give a `size` to which all are resized"
            )
        return 255 - image if self.invert else image

    def _read(self, file: Path) -> Tensor:
        return self.prepare(read_image(file, self.colour, "folder"), str(file))

    def _first(self) -> Path:
        return self._files["train"][0]

    def _base(self, part: str) -> Path:
        return self.folder / part if (self.folder / "train").is_dir() else self.folder

    def _is_labelled(self) -> bool:
        return any(file.parent != self._base(part) for part, files in self._files.items() for file in files)


def _files_by_part(folder: Path) -> dict[str, list[Path]]:
    """The images of each part that the folder brings, in natural order; TzkError if a part has none."""
    own = [split for split in SPLITS if (folder / split).is_dir()]
    if own and "train" not in own:
        raise TzkError(
            f"folder: {folder} has a folder {' and '.join(own)} but no folder train: "
            f"put the training images into {folder / 'train'}"
        )
    parts = {part: images_below(folder / part) for part in own} if own else {"train": images_below(folder)}
    for part, files in parts.items():
        if not files:
            where = folder / part if own else folder
            raise TzkError(f"folder: no images in {where}: expected names that end in {' '.join(SUFFIXES)}")
    return parts


def images_below(folder: Path) -> list[Path]:
    """The files below a folder whose names are those of images, in natural order; hidden ones are left alone."""
    images = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = (Path(parent, name) for name in files if not name.startswith("."))
        images += [file for file in shown if file.suffix.lower() in SUFFIXES]
    return sorted(images, key=lambda file: [natural_key(part) for part in file.relative_to(folder).parts])
